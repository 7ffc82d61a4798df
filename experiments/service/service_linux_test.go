package service_test

import (
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/service"
	"github.com/fnwire/fnwire/fnlib/store/s3"
	"github.com/fnwire/fnwire/fnlib/store/storetest"
	"github.com/fnwire/fnwire/internal/testserver/servertest"
)

// TestFrozen: calls of a client end with their context while the server is stopped, and all is well when it goes on.
func TestFrozen(t *testing.T) {
	server := servertest.VersityGW(t)
	at := serve(t, service.S3(), server.Addr)
	s, err := s3.Open(t.Context(), strings.Replace(server.URL, server.Addr, at, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	storetest.Frozen(t, s, 20<<16, func() func() { return servertest.Freeze(t, server) })
}
