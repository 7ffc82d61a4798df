package testserver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/internal/testserver"
	"github.com/fnwire/fnwire/internal/testserver/servertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func Example() {
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := testserver.StartRedis(context.Background(), dir)
	var missing *testserver.MissingError
	if errors.As(err, &missing) {
		fmt.Println("stopped") // an Example cannot be skipped; TestServers is, and says why
		return
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := s.Stop(); err == nil {
		fmt.Println("stopped")
	}
	// Output: stopped
}

func TestServers(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *testserver.Server{
		"redis":     func(t testing.TB) *testserver.Server { return servertest.Redis(t) },
		"versitygw": servertest.VersityGW,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			if !strings.Contains(s.URL, s.Addr) || s.Process() == 0 {
				t.Errorf("%+v", s.Program)
			}
			if err := s.Ready(t.Context()); err != nil {
				t.Error(err)
			}
			for range 2 {
				if err := s.Stop(); err != nil {
					t.Error(err)
				}
			}
			if c, err := net.Dial("tcp", s.Addr); err == nil {
				_ = c.Close()
				t.Error("it still listens")
			}
		})
	}
}

// TestWhyItDidNotStart holds that the error has the server's own words, and that nothing is waited for in vain.
func TestWhyItDidNotStart(t *testing.T) {
	servertest.Redis(t) // skips if there is none
	s, err := testserver.StartRedis(t.Context(), t.TempDir(), "--no-such-option", "1")
	if err == nil {
		_ = s.Stop()
		t.Fatal("it runs")
	}
	if !strings.Contains(err.Error(), "no-such-option") {
		t.Error(err)
	}
}
