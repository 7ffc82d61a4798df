package suite_test

import (
	"testing"

	"github.com/fnwire/fnwire/internal/testserver/servertest"
)

func TestFan(t *testing.T) {
	servertest.Redis(t) // skips if there is none
	servertest.VersityGW(t)
	byCase := run(t, "fan", map[string]string{"functions": "4", "bytes": "10KB", "ways": "fnwire,fnwire-send,redis,s3,nats"})
	want := map[string][]string{
		"fan-in": {"fnwire", "redis", "s3", "nats"}, "all-to-all": {"fnwire", "redis", "s3", "nats"},
		"fan-out": {"fnwire", "redis", "s3", "nats"},
	}
	states := map[string]int64{"fan-in": 3, "fan-out": 3, "all-to-all": 12}
	cases := 0
	for pattern, ways := range want {
		for _, way := range ways {
			cases++
			c := way + " " + pattern + " 4 10KB"
			if len(byCase[c]) != 1 {
				t.Errorf("%s: %d records", c, len(byCase[c]))
				continue
			}
			r := byCase[c][0]
			has(t, r, r.Measured, "done_ms", "cold_ms", "edge_ms", "edge_ms_slowest", "goodput_mbps", "cpu_s_per_gb_functions")
			if r.Bytes != 10e3*states[pattern] || r.Way != way || r.Work != pattern+" of 4, 10 KB" || len(r.Bill) == 0 || len(r.Samples["done_ms"]) == 0 {
				t.Errorf("%s: %+v", c, r)
			}
		}
	}
	if len(byCase) != cases {
		t.Errorf("%d cases, want %d", len(byCase), cases)
	}
}

// A fan-out of what is large goes by ref, but for fnwire-send.
func TestFanByRef(t *testing.T) {
	byCase := run(t, "fan", map[string]string{"functions": "4", "bytes": "2MB", "patterns": "fan-out", "ways": "fnwire,fnwire-send"})
	for _, way := range []string{"fnwire", "fnwire-send"} {
		if r := byCase[way+" fan-out 4 2MB"]; len(r) != 1 || r[0].Way != way || r[0].Path != "direct" || r[0].Bytes != 6e6 {
			t.Errorf("%s: %+v", way, r)
		}
	}
	if len(byCase) != 2 {
		t.Errorf("%d cases, want 2", len(byCase))
	}
}

// What moves too much, or has too many states, is left out; the rest is measured.
func TestFanLeavesOut(t *testing.T) {
	byCase := run(t, "fan", map[string]string{"functions": "3", "bytes": "10KB,100KB", "ways": "relay", "most": "200KB", "edges": "5"})
	for _, c := range []string{"fan-in 3 10KB", "fan-out 3 10KB", "fan-in 3 100KB", "fan-out 3 100KB"} {
		if len(byCase["relay "+c]) != 1 {
			t.Errorf("%s: %d records", c, len(byCase["relay "+c]))
		}
	}
	if len(byCase) != 4 {
		t.Errorf("%d cases, want 4", len(byCase))
	}
}
