package suite_test

import (
	"strings"
	"testing"
)

func TestRendezvous(t *testing.T) {
	byCase := run(t, "rendezvous", map[string]string{"instances": "40", "idle": "200ms", "rate": "100", "for": "1s", "parked": "20"})
	for _, c := range []string{"40"} {
		if len(byCase[c]) != 1 {
			t.Errorf("%s: %d records", c, len(byCase[c]))
			continue
		}
		m := byCase[c][0].Measured
		if m["offers_delivered"]+m["offers_late"] != 80 || m["offers_parked"] != 20 || m["offers_failed"] != 0 {
			t.Errorf("%s: %v", c, m)
		}
		has(t, byCase[c][0], m, strings.Fields("joins_per_s join_ms_p50 offer_ms_p50 offer_ms_p99 offer_ms_max delivered_ms_p99 parked_ms_p99 rss_kib_per_instance rendezvous_rss_mib")...)
		for _, phase := range []string{"idle", "offers"} {
			if _, ok := m[phase+"_cpu_percent"]; !ok {
				t.Errorf("%s: no CPU of %s", c, phase)
			}
		}
	}
}

func TestRelay(t *testing.T) {
	rs := run(t, "relay", map[string]string{"sessions": "40", "idle": "200ms", "pairs": "2", "rate": "2000", "for": "500ms"})["40"]
	if len(rs) != 1 {
		t.Fatalf("%d records", len(rs))
	}
	m := rs[0].Measured
	has(t, rs[0], m, strings.Fields("binds_per_s relay_rss_mib sent received kpps goodput_mbps")...)
	if m["received"] > m["sent"] || rs[0].Path != "relay" {
		t.Errorf("%v over %s", m, rs[0].Path)
	}
}
