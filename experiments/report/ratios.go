package report

import (
	"fmt"

	"github.com/fnwire/fnwire/experiments/results"
)

// ratio is one that an experiment is made for: of the medians of a value in two cases.
type ratio struct {
	experiment, value string
	of, to            string // cases
}

var ratios = []ratio{
	{"throughput", "goodput_mbps", "fnwire-direct", "plain-quic"},
	{"throughput", "goodput_mbps", "fnwire-direct", "libp2p-direct"},
	{"throughput", "cpu_s_per_gb_sender", "fnwire-direct", "tls-tcp"},
	{"throughput", "cpu_s_per_gb_receiver", "fnwire-direct", "tls-tcp"},
	{"throughput", "goodput_mbps", "fnwire-relay", "coturn"},
	{"throughput", "goodput_mbps", "fnwire-relay", "pion-turn"},
	{"throughput", "goodput_mbps", "fnwire-relay", "libp2p-relay"},
	{"throughput", "relay_mbps_per_core", "fnwire-relay", "coturn"},
	{"throughput", "relay_mbps_per_core", "fnwire-relay", "pion-turn"},
	{"throughput", "relay_mbps_per_core", "fnwire-relay", "libp2p-relay"},
	{"attack", "goodput_mbps", "bad-tokens", "other-port"},
	{"attack", "goodput_mbps", "replays", "other-port"},
	{"attack", "goodput_mbps", "bad-tokens", "calm"},
	{"attack", "goodput_mbps", "replays", "calm"},
}

// ratioLines returns what the records give of the ratios of their experiment.
func ratioLines(rs []results.Record) []string {
	var lines []string
	for _, q := range ratios {
		median := func(c string) (float64, int) {
			var v []float64
			for _, r := range rs {
				if x, there := r.Measured[q.value]; there && r.OK && r.Case == c && r.Experiment == q.experiment {
					v = append(v, x)
				}
			}
			return results.Median(v), len(v)
		}
		of, n := median(q.of)
		to, m := median(q.to)
		if n > 0 && m > 0 && to > 0 {
			lines = append(lines, fmt.Sprintf("%s, %s to %s: %.2f (medians of %d and %d)", q.value, q.of, q.to, of/to, n, m))
		}
	}
	return lines
}
