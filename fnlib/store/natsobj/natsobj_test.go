package natsobj_test

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/natsobj"
	"github.com/fnwire/fnwire/fnlib/store/storetest"
)

func TestMain(m *testing.M) {
	// The object store of nats.go, which a benchmark compares with, leaves that behind.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// startNATS runs a NATS server of a user's own.
func startNATS(t testing.TB, change func(*server.Options)) *server.Server {
	t.Helper()
	opts := &server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()}
	if change != nil {
		change(opts)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("FNWIRE_TEST_LOG") != "" {
		s.ConfigureLogger()
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("NATS does not start")
	}
	return s
}

// suite allows for the memory of the server, which is in this process, and less than an object has that is read at once.
func suite(open func(t *testing.T) store.Store) storetest.Suite {
	return storetest.Suite{Open: open, Live: 150 << 20}
}

var buckets atomic.Int64

// open opens a bucket of its own on a server.
func open(t testing.TB, url string) *natsobj.Store {
	t.Helper()
	s, err := natsobj.Open(t.Context(), fmt.Sprintf("%s/b%d", strings.TrimSuffix(url, "/"), buckets.Add(1)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	s := startNATS(t, func(o *server.Options) { o.Username, o.Password = "user", "pass" })
	url := strings.Replace(s.ClientURL(), "://", "://user:pass@", 1)
	suite(func(t *testing.T) store.Store { return open(t, url) }).Run(t)
}
