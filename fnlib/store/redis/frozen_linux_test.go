package redis_test

import (
	"testing"

	"github.com/fnwire/fnwire/fnlib/store/redis"
	"github.com/fnwire/fnwire/fnlib/store/storetest"
	"github.com/fnwire/fnwire/internal/testserver/servertest"
)

func TestFrozenServer(t *testing.T) {
	server := servertest.Redis(t)
	storetest.Frozen(t, opened(t, server.URL), 20*redis.ChunkSize, func() func() { return servertest.Freeze(t, server) })
}
