package suite_test

import (
	"testing"

	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/suite"
)

func TestThroughput(t *testing.T) {
	byCase := run(t, "throughput", map[string]string{
		"bytes": "16MiB", "reps": "1", "cases": "fnwire-direct,plain-quic,tls-tcp,fnwire-relay",
	})
	for c, path := range map[string]string{
		"fnwire-direct": "direct", "fnwire-relay": "relay", "plain-quic": "plain-quic", "tls-tcp": "tls-tcp",
	} {
		if len(byCase[c]) != 1 {
			t.Errorf("%s: %d records", c, len(byCase[c]))
			continue
		}
		r := byCase[c][0]
		if r.Path != path || r.Bytes != 16<<20 || r.Config == "" {
			t.Errorf("%s: %d bytes over %s, %q", c, r.Bytes, r.Path, r.Config)
		}
		work, way := "a stream of 16 MiB, direct", c
		if path == "relay" {
			work = "a stream of 16 MiB, by a relay"
		}
		if path == "direct" || path == "relay" {
			way = "fnwire"
		}
		if r.Work != work || r.Way != way {
			t.Errorf("%s: %q by %q", c, r.Work, r.Way)
		}
		has(t, r, r.Measured, "goodput_mbps", "cpu_s_per_gb_sender", "cpu_s_per_gb_receiver")
		if path == "relay" {
			has(t, r, r.Measured, "cpu_s_per_gb_relay", "relay_mbps_per_core", "relay_kpps_per_core", "kpps")
		}
	}
}

// A server that is not installed is skipped: that is no failure, and the record says what to install.
func TestThroughputSkips(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // neither go nor turnserver
	t.Chdir(t.TempDir())
	e, err := suite.Find("throughput")
	if err != nil {
		t.Fatal(err)
	}
	var got []results.Record
	err = e.Run(t.Context(), suite.Options{
		Quick: true, Set: map[string]string{"bytes": "1MiB", "reps": "1", "cases": "coturn"},
		Emit: func(r results.Record) error { got = append(got, r); return nil },
	})
	if err != nil || len(got) != 1 || !got[0].Skipped || got[0].OK || got[0].Error == "" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Admitted pairs go on under a flood of binds, which get no bytes back. The rate is low: what it takes at full rate is for a
// measurement, not for a test.
func TestAttack(t *testing.T) {
	set := map[string]string{"for": "1s", "rate": "5000", "from": "512", "load": "2MB", "cases": "calm,other-port,bad-tokens"}
	byCase := run(t, "attack", set)
	// In a world of their own: the bad tokens that still wait in the kernel keep replays from being looked at.
	set["cases"] = "replays"
	byCase["replays"] = run(t, "attack", set)["replays"]
	for _, c := range []string{"calm", "other-port", "bad-tokens", "replays"} {
		if len(byCase[c]) != 1 {
			t.Errorf("%s: %d records", c, len(byCase[c]))
			continue
		}
		r := byCase[c][0]
		has(t, r, r.Measured, "goodput_mbps", "cores_relay")
		if c == "calm" {
			continue
		}
		has(t, r, r.Measured, "flood_kpps", "flood_bytes_out")
		if back := r.Measured["flood_bytes_back"]; back != 0 {
			t.Errorf("%s: %v bytes to strangers", c, back)
		}
	}
	if r := byCase["bad-tokens"]; len(r) == 1 {
		has(t, r[0], r[0].Measured, "dropped_kpps_stranger")
	}
	if r := byCase["replays"]; len(r) == 1 {
		has(t, r[0], r[0].Measured, "dropped_kpps_replay")
	}
}

// libp2p goes through the same matrix, and judges nothing by fnwire's targets. What it needs is built here, which takes a minute
// the first time.
func TestNATMatrixOfLibp2p(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles libp2p")
	}
	byCase := run(t, "nat-matrix", map[string]string{"peer": "libp2p", "nats": "port-restricted,symmetric", "shared": "", "reps": "1", "traffic": "3s"})
	if len(byCase) != 3 {
		t.Errorf("%d cases, want 3", len(byCase))
	}
	for c, rs := range byCase {
		if rs[0].Config == "" {
			t.Errorf("%s: its configuration is not told", c)
		}
		has(t, rs[0], rs[0].Measured, "first_byte_ms", "receipt_ms")
	}
}
