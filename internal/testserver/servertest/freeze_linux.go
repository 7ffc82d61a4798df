package servertest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/testserver"
)

// Freeze stops a server, as SIGSTOP does, and returns when it stands still. What it returns has it go on, as the end of the test does.
func Freeze(t testing.TB, s *testserver.Server) (thaw func()) {
	t.Helper()
	if err := syscall.Kill(s.Process(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	thaw = func() { _ = syscall.Kill(s.Process(), syscall.SIGCONT) }
	t.Cleanup(thaw)
	for ; !still(s.Process()); time.Sleep(time.Millisecond) {
		if t.Context().Err() != nil {
			t.Fatal("it does not stop")
		}
	}
	return thaw
}

// still tells whether each thread is stopped: the field after the name, which is in parentheses.
func still(process int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", process))
	for _, file := range threads {
		stat, _ := os.ReadFile(file)
		if _, state, _ := bytes.Cut(stat, []byte(") ")); !bytes.HasPrefix(state, []byte("T")) {
			return false
		}
	}
	return err == nil && len(threads) > 0
}
