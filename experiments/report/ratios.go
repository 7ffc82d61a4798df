package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"

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

// transferRatios are those of the experiment transfer: what a hand-over by another way takes, to what it takes directly, for each size.
func transferRatios(rs []results.Record) (out []ratio) {
	sizes := make(map[int64]string)
	for _, r := range rs {
		if way, size, ok := strings.Cut(r.Case, " "); ok && r.Experiment == "transfer" && way == "direct" {
			sizes[r.Bytes] = size
		}
	}
	for _, value := range []string{"warm_ms", "cold_ms"} {
		for _, way := range []string{"redis", "nats", "s3", "relay"} {
			for _, bytes := range slices.Sorted(maps.Keys(sizes)) {
				out = append(out, ratio{"transfer", value, way + " " + sizes[bytes], "direct " + sizes[bytes]})
			}
		}
	}
	return out
}

// ratioLines returns what the records give of the ratios of their experiment.
func ratioLines(rs []results.Record) []string {
	var lines []string
	for _, q := range slices.Concat(ratios, transferRatios(rs)) {
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
