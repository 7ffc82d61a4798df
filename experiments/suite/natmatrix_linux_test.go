package suite_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/experiments/natmatrix"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/suite"
)

func TestNATMatrix(t *testing.T) {
	byCase := run(t, natmatrix.Experiment, map[string]string{
		"nats": "full-cone+remap,udp-blocked,port-restricted,https-only", "shared": "cgn,cgn+hairpin,port-restricted", "reps": "2",
		"bytes": "3KiB", "traffic": "500ms",
	})
	want := map[string]struct{ path, expected, via string }{
		"full-cone+remap x full-cone+remap": {"direct", "punch", "udp/udp"},
		"full-cone+remap x udp-blocked":     {"relay", "relay", "udp/wss"},
		"full-cone+remap x port-restricted": {"direct", "punch", "udp/udp"},
		"udp-blocked x udp-blocked":         {"relay", "relay", "wss/wss"},
		"udp-blocked x port-restricted":     {"relay", "relay", "wss/udp"},
		"port-restricted x port-restricted": {"direct", "punch", "udp/udp"},
		"full-cone+remap x https-only":      {"relay", "relay", "udp/wss"},
		"udp-blocked x https-only":          {"relay", "relay", "wss/wss"},
		"port-restricted x https-only":      {"relay", "relay", "udp/wss"},
		"https-only x https-only":           {"relay", "relay", "wss/wss"},
		"cgn, one NAT":                      {"relay", "relay", "udp/udp"},
		"cgn+hairpin, one NAT":              {"direct", "punch", "udp/udp"},
		"port-restricted, one NAT":          {"direct", "lan", "udp/udp"},
	}
	if len(byCase) != len(want) {
		t.Errorf("%d cases, want %d", len(byCase), len(want))
	}
	for c, w := range want {
		if len(byCase[c]) != 2 {
			t.Errorf("%s: %d records", c, len(byCase[c]))
		}
		for _, r := range byCase[c] {
			if r.Path != w.path || r.Expected != w.expected || r.Via != w.via || r.Bytes != 2*3<<10 {
				t.Errorf("%s: %s by %s, expected %s, %d bytes: %s", c, r.Path, r.Via, r.Expected, r.Bytes, r.Reason)
			}
			has(t, r, r.Measured, "first_byte_ms", "receipt_ms")
			if w.path == "direct" {
				has(t, r, r.Measured, "direct_ms")
			}
		}
	}
}

// A pair that is silent for longer than a mapping lasts is direct all the same: somebody keeps the mapping.
func TestNATMatrixSilence(t *testing.T) {
	byCase := run(t, natmatrix.Experiment, map[string]string{
		"nats": "port-restricted+remap+timeout=10s", "shared": "", "reps": "1", "silence": "1.1", "traffic": "2s",
	})
	for _, rs := range byCase {
		if r := rs[0]; r.Path != "direct" || r.Measured["silence_s"] != 11 {
			t.Errorf("%s after %v s: %s", r.Path, r.Measured["silence_s"], r.Reason)
		}
	}
}

// A run that goes on where another stopped judges what that one measured, too.
func TestNATMatrixResumed(t *testing.T) {
	e, err := suite.Find(natmatrix.Experiment)
	if err != nil {
		t.Fatal(err)
	}
	opt := suite.Options{
		Set:  map[string]string{"nats": "none", "shared": "", "reps": "2", "bytes": "1KiB", "parallel": "1"},
		Emit: func(results.Record) error { return nil },
	}
	var first []results.Record
	stop, halt := context.WithCancel(t.Context())
	opt.Emit = func(r results.Record) error {
		first = append(first, r)
		halt()
		return nil
	}
	if err := e.Run(stop, opt); !errors.Is(err, context.Canceled) {
		labtest.Unavailable(t, err)
	}
	if len(first) != 1 || first[0].Path != "direct" {
		t.Fatalf("%+v", first)
	}
	first[0].Path, first[0].Reason = "relay", "as measured before" // so that it tells
	again := 0
	opt.Before = first
	opt.Has = func(r results.Record) bool { return r.Key() == first[0].Key() }
	opt.Emit = func(results.Record) error { again++; return nil }
	err = e.Run(t.Context(), opt)
	if err == nil || !strings.Contains(err.Error(), "none x none: direct 1 of 2, want 2 (punch): as measured before") || again != 1 {
		t.Errorf("%d measured again: %v", again, err)
	}
}
