// Package labtest lets tests use labs: it starts them again in a user namespace if need be, and says why they cannot run
// where labs are not possible. In continuous integration (FNWIRE_CI or CI set) that fails them: they are never skipped silently there.
package labtest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/fnwire/fnwire/experiments/lab"
)

// Main is the whole of a TestMain: func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }
func Main(m *testing.M) int {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err) // each test that needs a lab tells it again
		if !inCI() {
			fmt.Fprintln(os.Stderr, "examples, which cannot be skipped one by one, are left out")
			_ = flag.Set("test.skip", "^Example")
		}
	}
	return m.Run()
}

// New makes a lab that is closed at the end of the test. Without the rights for it the test is skipped, or fails if in CI.
func New(t testing.TB, hosts ...lab.Host) *lab.Lab {
	t.Helper()
	l, err := lab.New(t.Context(), lab.Spec{Hosts: hosts})
	if err != nil {
		Unavailable(t, err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close lab: %v", err)
		}
	})
	return l
}

// Unavailable ends the test because of err: skips it if labs are not possible here and this is not CI, else fails it.
func Unavailable(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, lab.ErrUnavailable) && !inCI() {
		t.Skip(err)
	}
	t.Fatal(err)
}

func inCI() bool {
	for _, name := range []string{"FNWIRE_CI", "CI"} {
		if on, err := strconv.ParseBool(os.Getenv(name)); on && err == nil {
			return true
		}
	}
	return false
}
