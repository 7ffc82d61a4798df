package results_test

import (
	"os"
	"os/signal"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fnwire/fnwire/experiments/results"
)

// TestFull: a line that the disk has no room for leaves nothing behind, and what is written once there is room again can be read.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	w, err := results.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(record(0, true)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, results.FileName))
	if err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	full := limit
	full.Cur = uint64(info.Size()) + 10
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	failed := w.Write(record(1, true))
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	if failed == nil || w.Has(record(1, true)) {
		t.Errorf("written: %v", failed)
	}
	if now, err := os.Stat(filepath.Join(dir, results.FileName)); err != nil || now.Size() != info.Size() {
		t.Errorf("%d bytes before, %d after: %v", info.Size(), now.Size(), err)
	}
	if err := w.Write(record(2, true)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if all, err := results.Load(dir); err != nil || len(all) != 2 || all[1].Rep != 2 {
		t.Errorf("%+v, %v", all, err)
	}
}
