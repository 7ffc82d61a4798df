package filelock_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fnwire/fnwire/internal/filelock"
)

func open(name string) *os.File {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		panic(err)
	}
	return f
}

// TestMain is also the process that TestKilled kills.
func TestMain(m *testing.M) {
	if name := os.Getenv("FNWIRE_TEST_LOCK"); name != "" {
		fmt.Println(filelock.TryExclusive(open(name)))
		select {}
	}
	os.Exit(m.Run())
}

func Example() {
	dir, err := os.MkdirTemp("", "filelock")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	name := filepath.Join(dir, "lock")
	a, b := open(name), open(name)
	fmt.Println(filelock.TryExclusive(a))
	fmt.Println(filelock.TryExclusive(b))
	_ = a.Close()
	fmt.Println(filelock.TryExclusive(b))
	_ = b.Close()
	// Output:
	// <nil>
	// locked by another
	// <nil>
}

func TestShared(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	a, b, c := open(name), open(name), open(name)
	if err := errors.Join(filelock.Shared(a), filelock.Shared(b)); err != nil {
		t.Fatal(err)
	}
	if err := filelock.TryExclusive(c); !errors.Is(err, filelock.ErrLocked) {
		t.Errorf("exclusive beside shared: %v", err)
	}
	if err := errors.Join(a.Close(), b.Close(), filelock.Exclusive(c), c.Close()); err != nil {
		t.Error(err)
	}
}

// A process that is killed leaves no lock.
func TestKilled(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "FNWIRE_TEST_LOCK="+name)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n') // the line tells
	f := open(name)
	alive := filelock.TryExclusive(f)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if line != "<nil>\n" || !errors.Is(alive, filelock.ErrLocked) {
		t.Errorf("while it lived: it %q, we %v", line, alive)
	}
	if err := errors.Join(filelock.TryExclusive(f), f.Close()); err != nil {
		t.Errorf("after it: %v", err)
	}
}
