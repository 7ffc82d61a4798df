//go:build unix

package results_test

import (
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/results"
)

// Two runs at a time would write over each other's lines.
func TestOneWriter(t *testing.T) {
	dir := t.TempDir()
	w, err := results.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := results.Open(dir); err == nil || !strings.Contains(err.Error(), "another run writes to it") {
		t.Errorf("a second one: %v", err)
	}
	if err := w.Write(record(0, true)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w, err = results.Open(dir); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if len(w.Before()) != 1 {
		t.Errorf("%d records", len(w.Before()))
	}
}
