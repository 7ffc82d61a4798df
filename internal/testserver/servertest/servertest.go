// Package servertest starts the servers of package testserver for a test. Where one is not installed the test is skipped; in
// continuous integration (FNWIRE_CI or CI set) that fails it: it is never skipped silently there. Nothing but tests imports it.
package servertest

import (
	"errors"
	"os"
	"testing"

	"github.com/fnwire/fnwire/internal/testserver"
)

// Redis starts a redis-server, with more arguments, that ends with the test.
func Redis(t testing.TB, args ...string) *testserver.Server {
	t.Helper()
	s, err := testserver.StartRedis(t.Context(), t.TempDir(), args...)
	return started(t, s, err)
}

// VersityGW starts an S3 server that ends with the test, whose environment gets the credentials.
func VersityGW(t testing.TB) *testserver.Server {
	t.Helper()
	return VersityGWIn(t, t.TempDir())
}

// VersityGWIn is VersityGW with its objects in a directory.
func VersityGWIn(t testing.TB, dir string) *testserver.Server {
	t.Helper()
	for name, value := range testserver.S3Env() {
		t.Setenv(name, value)
	}
	s, err := testserver.StartVersityGW(t.Context(), dir)
	return started(t, s, err)
}

func started(t testing.TB, s *testserver.Server, err error) *testserver.Server {
	t.Helper()
	var missing *testserver.MissingError
	if errors.As(err, &missing) && os.Getenv("FNWIRE_CI") == "" && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := s.Stop()
		if err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("%s wrote last:\n%s", s.Name, s.Output())
		}
	})
	return s
}
