package server

import (
	"crypto/rand"
	"testing"

	"github.com/fnwire/fnwire/internal/job"
)

// However many jobs there are, little is kept, and what a job has reported last is among it.
func TestHintsAreBounded(t *testing.T) {
	var h hints
	for range maxHints + 100 {
		var id job.ID
		_, _ = rand.Read(id[:])
		if h.note(id, 0) != 0 || h.note(id, 1) != 1 || h.note(id, 8) != 9 || h.note(id, 0) != 9 {
			t.Fatal("not what was reported")
		}
	}
	if n := len(h.jobs); n != maxHints {
		t.Errorf("%d jobs", n)
	}
}
