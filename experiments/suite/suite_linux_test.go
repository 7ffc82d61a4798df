package suite_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/service"
	"github.com/fnwire/fnwire/experiments/suite"
	"github.com/fnwire/fnwire/experiments/world"
	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/testserver/servertest"
)

func TestMain(m *testing.M) {
	if code, is := world.WorkerMain(os.Args); is {
		os.Exit(code)
	}
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // workers built for race detection would sleep at their end
	os.Exit(labtest.Main(m))
}

func Example() {
	e, err := suite.Find("pairs")
	if err != nil {
		panic(err)
	}
	err = e.Run(context.Background(), suite.Options{
		Set: map[string]string{"nats": "none:symmetric", "reps": "1", "bytes": "2KiB"},
		Emit: func(r results.Record) error {
			fmt.Println(r.Experiment, r.Case, r.Path, r.Bytes, r.OK)
			return nil
		},
	})
	fmt.Println(err)
	// Output:
	// pairs none x symmetric direct 2048 true
	// <nil>
}

// run runs an experiment and returns its records by case.
func run(t *testing.T, name string, set map[string]string) map[string][]results.Record {
	t.Helper()
	e, err := suite.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	byCase := make(map[string][]results.Record)
	err = e.Run(t.Context(), suite.Options{Quick: true, Set: set, Commit: "test", Emit: func(r results.Record) error {
		if !r.OK || r.Seconds <= 0 || r.Bytes <= 0 || r.Commit != "test" || r.Machine.Cores == 0 || r.Time.IsZero() {
			t.Errorf("%+v", r)
		}
		for k, v := range set {
			if r.Settings[k] != v {
				t.Errorf("setting %s is %q, want %q", k, r.Settings[k], v)
			}
		}
		for k, v := range r.Measured {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				t.Errorf("%s: %s is %v", r.Case, k, v)
			}
		}
		byCase[r.Case] = append(byCase[r.Case], r)
		return nil
	}})
	if err != nil {
		labtest.Unavailable(t, err)
	}
	return byCase
}

func has(t *testing.T, r results.Record, what map[string]float64, names ...string) {
	t.Helper()
	for _, n := range names {
		if v, ok := what[n]; !ok || v <= 0 {
			t.Errorf("%s: %s is %v", r.Case, n, v)
		}
	}
}

func hasSamples(t *testing.T, r results.Record, names ...string) {
	t.Helper()
	for _, n := range names {
		if r.Measured[n] <= 0 || results.Median(r.Samples[n]) != r.Measured[n] {
			t.Errorf("%s: %s is %v, of samples %v", r.Case, n, r.Measured[n], r.Samples[n])
		}
	}
}

// hasBill demands that waiting is charged to the way, and a break-even wherever there are servers.
func hasBill(t *testing.T, r results.Record) {
	t.Helper()
	waiting := slices.ContainsFunc(r.Bill, func(c results.Charge) bool {
		return c.Item == "function time, waiting" && c.Dollars > 0 && c.For == r.Way
	})
	servers := slices.ContainsFunc(r.Bill, func(c results.Charge) bool { return c.Unit == "hour" })
	if !waiting || servers != (r.Measured["break_even_per_hour"] > 0) || servers == (r.Way == "s3") {
		t.Errorf("%s: bill %+v, break-even %v", r.Case, r.Bill, r.Measured["break_even_per_hour"])
	}
}

// TestModelledService: a store by its model is slower by that at least, and the record says so.
func TestModelledService(t *testing.T) {
	servertest.Redis(t) // skips if there is none
	servertest.VersityGW(t)
	byCase := run(t, "transfer", map[string]string{"sizes": "1KiB", "ways": "redis,s3,nats", "reps": "1", "service": "modelled"})
	for way, m := range map[string]service.Model{"redis": service.Redis(), "s3": service.S3(), "nats": {}} {
		c := byCase[way+" 1KiB"]
		if len(c) != 1 {
			t.Fatalf("%s: %d records", way, len(c))
		}
		says := c[0].Modelled
		if m.None() != (len(says) == 0) || !m.None() && says[0] != m.Says || slices.Min(c[0].Samples["warm_ms"]) < 2*m.FirstByte.Seconds()*1e3 {
			t.Errorf("%s: %v ms, modelled: %q", way, c[0].Samples["warm_ms"], says)
		}
	}
}

func TestTransfer(t *testing.T) {
	servertest.Redis(t) // skips if there is none
	servertest.VersityGW(t)
	byCase := run(t, "transfer", map[string]string{"sizes": "1KiB,4MiB", "reps": "1"})
	for _, way := range []string{"direct", "relay", "redis", "s3", "nats"} {
		for size, bytes := range map[string]int64{"1KiB": 1 << 10, "4MiB": 4 << 20} {
			c := byCase[way+" "+size]
			if len(c) != 1 {
				t.Errorf("%s %s: %d records", way, size, len(c))
				continue
			}
			r := c[0]
			if r.Path != way || r.Bytes != bytes || r.Way != map[bool]string{true: "fnwire", false: way}[way == "direct"] || len(r.Modelled) > 0 {
				t.Errorf("%s %s: %d bytes over %s by %s, modelled: %q", way, size, r.Bytes, r.Path, r.Way, r.Modelled)
			}
			hasSamples(t, r, "warm_ms", "warm_first_byte_ms", "cold_ms", "first_byte_ms")
			hasBill(t, r)
			has(t, r, r.Measured, "warm_ms", "cold_ms", "goodput_mbps", "cpu_s_per_gb_sender", "cpu_s_per_gb_receiver")
			switch way {
			case "direct":
				has(t, r, r.Measured, "direct_ms")
				fallthrough
			case "relay":
				has(t, r, r.Measured, "first_byte_ms", "warm_receipt_ms")
				has(t, r, r.Phases, "sender_connect", "sender_join", "receiver_relay", "receiver_stun", "call_total")
				if way == "relay" || bytes > fnlib.MaxEarly { // else no link was made for it, unless the machine is slow
					has(t, r, r.Phases, "call_answer", "call_link")
				}
			}
		}
	}
}

// With a profile, the network is measured before anything else, and each record tells of it.
func TestTransferOverProfile(t *testing.T) {
	byCase := run(t, "transfer", map[string]string{"sizes": "32MiB", "ways": "direct,nats", "reps": "1", "profile": "cross-az"})
	for _, way := range []string{"direct", "nats"} {
		c := byCase[way+" 32MiB"]
		if len(c) != 1 {
			t.Fatalf("%s: %d records", way, len(c))
		}
		r := c[0]
		has(t, r, r.Measured, "line_busiest_percent")
		if len(r.Calibration) != 8 || r.Measured["goodput_mbps"] > 600 {
			t.Errorf("%s: %v Mbit/s, %+v", way, r.Measured["goodput_mbps"], r.Calibration)
		}
		if way == "direct" && r.Measured["rtt_ms"] < 0.9 {
			t.Errorf("a round trip of %v ms between zones", r.Measured["rtt_ms"])
		}
	}
}

func TestFootprint(t *testing.T) {
	byCase := run(t, "footprint", map[string]string{"bytes": "4MiB", "idle": "1s", "starts": "3", "reps": "1"})
	for c, names := range map[string][]string{
		"start": {"start_cpu_ms_function", "start_cpu_ms_empty", "program_mb_function"}, "idle": {"idle_rss_mib"},
		"direct": {"sender_idle_rss_mib", "receiver_peak_more_mib"}, "relay": {"sender_peak_more_mib"},
	} {
		if len(byCase[c]) != 1 {
			t.Errorf("%s: %d records", c, len(byCase[c]))
			continue
		}
		has(t, byCase[c][0], byCase[c][0].Measured, names...)
	}
}

func TestPairs(t *testing.T) {
	byCase := run(t, "pairs", map[string]string{
		"nats": "port-restricted:port-restricted,symmetric:symmetric", "reps": "2", "bytes": "100KiB", "settle": "1s",
	})
	for c, path := range map[string]string{"port-restricted x port-restricted": "direct", "symmetric x symmetric": "relay"} {
		if len(byCase[c]) != 2 {
			t.Errorf("%s: %d records", c, len(byCase[c]))
		}
		for _, r := range byCase[c] {
			if r.Path != path {
				t.Errorf("%s: ended on %s (%s)", c, r.Path, r.Reason)
			}
			has(t, r, r.Measured, "first_byte_ms", "receipt_ms")
		}
	}
}

func TestConnect(t *testing.T) {
	byCase := run(t, "connect", map[string]string{
		"nats": "port-restricted:port-restricted,udp-blocked:port-restricted", "skews": "0s,200ms", "late": "receiver", "from": "cold,called,warm", "reps": "1", "settle": "500ms",
	})
	if len(byCase) != 12 {
		t.Errorf("%d cases, want 12", len(byCase))
	}
	for c, rs := range byCase {
		r := rs[0]
		if r.Work != "set-up, "+c || r.Way != "fnwire" || r.Bytes != 1<<10 || len(r.Samples["first_byte_ms"]) != 1 || len(r.Samples["linked_first_byte_ms"]) != 5 {
			t.Errorf("%s: %+v", c, r)
		}
		has(t, r, r.Measured, "first_byte_ms", "delivered_ms", "receipt_ms", "linked_first_byte_ms")
		has(t, r, r.Phases, "sender_joined", "receiver_joined", "call_total")
		path, least := "relay", -100.0
		if strings.Contains(c, "port-restricted x") {
			path = "direct"
			has(t, r, r.Measured, "direct_ms")
		}
		if strings.HasSuffix(c, "receiver 200ms late") {
			least = 150
		}
		if r.Path != path || r.Measured["skew_ms"] < least {
			t.Errorf("%s: ended on %s, skew of %v ms", c, r.Path, r.Measured["skew_ms"])
		}
	}
}

// Whatever may have a profile measures its network first, and watches the lines of each world.
func TestProfiles(t *testing.T) {
	small := map[string]map[string]string{
		"connect":    {"nats": "cgn:port-restricted", "skews": "0s", "from": "warm"},
		"throughput": {"bytes": "1MiB", "cases": "fnwire-relay,tls-tcp"},
		"flap":       {"bytes": "1MB", "cycles": "1", "outage": "300ms", "calm": "200ms"},
		"faults":     {"faults": "silent,mtu-line", "modes": "bulk", "bytes": "1MB", "calm": "200ms"},
		"nat-matrix": {"nats": "port-restricted,udp-blocked", "shared": "cgn+hairpin", "bytes": "1KiB", "traffic": "500ms"},
		"rendezvous": {"instances": "40", "idle": "200ms", "for": "1s"},
		"handoff":    {"transfers": "10", "functions": "5", "bytes": "100KiB"},
	}
	for name, set := range small {
		t.Run(name, func(t *testing.T) {
			if name == "handoff" {
				servertest.Redis(t) // skips if there is none
			}
			set["profile"], set["reps"] = "lan", "1"
			for c, rs := range run(t, name, set) {
				for _, r := range rs {
					if _, watched := r.Measured["line_busiest_percent"]; !watched || len(r.Calibration) != 4 {
						t.Errorf("%s: %v, calibrated %+v", c, r.Measured, r.Calibration)
					}
				}
			}
		})
	}
}

func TestSkew(t *testing.T) {
	byCase := run(t, "skew", map[string]string{"skews": "0s,300ms", "reps": "1", "bytes": "100KiB"})
	for c, least := range map[string]float64{"receiver 0s later": -100, "receiver 300ms later": 250} {
		if len(byCase[c]) != 1 {
			t.Fatalf("%s: %d records", c, len(byCase[c]))
		}
		r := byCase[c][0]
		has(t, r, r.Measured, "first_byte_ms", "delivered_ms")
		if r.Measured["skew_ms"] < least {
			t.Errorf("%s: skew of %v ms", c, r.Measured["skew_ms"])
		}
		hasSamples(t, r, "first_byte_ms")
		hasBill(t, r)
	}
	for _, r := range byCase["sender gone 0s before"] {
		hasSamples(t, r, "delivered_ms")
		hasBill(t, r)
	}
}

func TestFlap(t *testing.T) {
	byCase := run(t, "flap", map[string]string{
		"bytes": "10MB", "rate": "20MB", "cycles": "1", "outage": "300ms", "calm": "200ms",
	})
	for _, rs := range byCase {
		r := rs[0]
		if r.Bytes < 10e6 || r.Measured["changes"] != 2 {
			t.Errorf("%+v", r)
		}
		has(t, r, r.Measured, "goodput_mbps", "gap_longest_ms", "downgrade_noticed_ms", "upgrade_noticed_ms")
	}
}

func TestFaults(t *testing.T) {
	byCase := run(t, "faults", map[string]string{
		"faults": "silent,nat-reboot-sender,relay-restarted", "bytes": "4MB", "calm": "200ms", "parallel": "2",
	})
	for _, c := range []string{"silent/bulk", "silent/chat", "nat-reboot-sender/bulk", "nat-reboot-sender/chat", "relay-restarted/bulk", "relay-restarted/chat"} {
		if len(byCase[c]) != 1 {
			t.Fatalf("%s: %d records", c, len(byCase[c]))
		}
		r := byCase[c][0]
		has(t, r, r.Measured, "paths")
		if strings.HasPrefix(c, "silent") || strings.HasPrefix(c, "relay-restarted") { // else there may be no gap that counts
			has(t, r, r.Measured, "gap_ms", "recovered_ms")
		}
		if strings.HasPrefix(c, "silent") && r.Measured["changes"] < 2 {
			t.Errorf("%s: %v changes of path: %s", c, r.Measured["changes"], r.Reason)
		}
		if strings.HasSuffix(c, "bulk") && r.Bytes < 4e6 {
			t.Errorf("%s: %d bytes", c, r.Bytes)
		}
	}
}

// Thirty states among five functions, to which everything happens that can: all receipts are true.
func TestHandoff(t *testing.T) {
	servertest.Redis(t) // skips if there is none
	r := run(t, "handoff", map[string]string{"transfers": "30", "functions": "5", "bytes": "1MiB", "every": "300ms"})["chaos"]
	if len(r) != 1 {
		t.Fatalf("%+v", r)
	}
	m := r[0].Measured
	if m["accepted"]+m["stored"] < 1 || m["accepted"]+m["stored"]+m["failed"]+m["died"] != 30 || m["wrong"] != 0 {
		t.Errorf("%+v", r)
	}
}

// What was measured before is not measured again, and what failed before is.
func TestResume(t *testing.T) {
	e, err := suite.Find("skew")
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	opt := suite.Options{
		Set: map[string]string{"skews": "0s,1ms", "reps": "2", "bytes": "1KiB", "cases": "receiver"},
		Has: func(r results.Record) bool { return r.Rep == 0 || r.Case == "receiver 0s later" },
		Emit: func(r results.Record) error {
			seen = append(seen, fmt.Sprint(r.Case, " ", r.Rep))
			return nil
		},
	}
	if err := e.Run(t.Context(), opt); err != nil {
		labtest.Unavailable(t, err)
	}
	if len(seen) != 1 || seen[0] != "receiver 1ms later 1" {
		t.Errorf("measured %q", seen)
	}
	stop := errors.New("disk full")
	opt.Emit = func(results.Record) error { return stop }
	if err := e.Run(t.Context(), opt); !errors.Is(err, stop) {
		t.Errorf("a record that could not be written gives %v", err)
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct{ experiment, name, value string }{
		{"transfer", "no-such", "1"}, {"transfer", "sizes", "many"}, {"transfer", "reps", "0"}, {"transfer", "ways", "pigeon"},
		{"transfer", "sizes", ""}, {"transfer", "profile", "moon"}, {"transfer", "service", "fast"}, {"footprint", "idle", "long"}, {"pairs", "nats", "a:b"}, {"pairs", "settle", "soon"},
		{"pairs", "profile", "moon"}, {"pairs", "nats", ""}, {"connect", "nats", "brick:none"}, {"connect", "skews", "-1s"}, {"connect", "late", "nobody"},
		{"connect", "from", "moon"}, {"connect", "from", ""}, {"faults", "profile", "moon"}, {"handoff", "profile", "moon"}, {"nat-matrix", "profile", "moon"}, {"rendezvous", "profile", "moon"}, {"skew", "skews", "-1s"}, {"skew", "cases", "moon"}, {"skew", "profile", ""}, {"flap", "cycles", "x"},
		{"nat-matrix", "nats", "brick"}, {"nat-matrix", "nats", "cgn,nat444"}, {"nat-matrix", "shared", "none"}, {"nat-matrix", "peer", "pigeon"},
		{"nat-matrix", "parallel", "-1"}, {"nat-matrix", "traffic", "much"}, {"nat-matrix", "silence", "-1"}, {"nat-matrix", "silence", "gold"},
		{"faults", "faults", "no-such"}, {"faults", "modes", "song"}, {"faults", "parallel", "0"},
		{"relay", "sessions", "1"}, {"relay", "pairs", "2000"}, {"relay", "bytes", "9000"}, {"relay", "for", "2m"},
		{"rendezvous", "instances", "1"}, {"rendezvous", "instances", "many"}, {"rendezvous", "instances", ""}, {"rendezvous", "parked", "101"}, {"rendezvous", "for", "1us"},
		{"fan", "functions", "1"}, {"fan", "functions", "many"}, {"fan", "patterns", "star"}, {"fan", "ways", "pigeon"}, {"fan", "bytes", "0"}, {"fan", "tree", "0"},
		{"fan", "most", "1KB"}, {"fan", "edges", "1"}, {"fan", "profile", "moon"},
		{"handoff", "functions", "1"}, {"handoff", "transfers", "0"}, {"handoff", "every", "now"},
		{"rendezvous", "idle", "-1s"}, {"rendezvous", "idle", "0s"}, {"relay", "idle", "-1s"}, {"footprint", "idle", "0s"}, {"nat-matrix", "traffic", "-1s"},
		{"pairs", "settle", "-1s"}, {"connect", "settle", "-1s"}, {"flap", "outage", "-1s"}, {"flap", "calm", "-1s"}, {"faults", "long", "-1s"}, {"handoff", "every", "0s"},
		{"handoff", "bytes", "0"}, {"handoff", "bytes", "NaN"}, {"handoff", "transfers", "100000000000"}, {"flap", "rate", "NaN"}, {"attack", "load", "NaN"}, {"attack", "from", "100000"},
		{"skew", "bytes", "0"}, {"throughput", "bytes", "0"}, {"pairs", "bytes", "0"}, {"connect", "bytes", "0"}, {"footprint", "bytes", "0"}, {"transfer", "sizes", "1000GiB"},
		{"skew", "skews", ""}, {"skew", "cases", ","}, {"faults", "modes", ""}, {"pairs", "nats", "symmetric"}, {"connect", "nats", "symmetric:"},
		{"relay", "rate", "100000000"}, {"fan", "parallel", "0"}, {"fan", "functions", "129"},
	} {
		e, err := suite.Find(c.experiment)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Check(t.Context(), suite.Options{Set: map[string]string{c.name: c.value}}); !errors.Is(err, suite.ErrSettings) {
			t.Errorf("%s: %s=%s: %v", c.experiment, c.name, c.value, err)
		}
	}
	e, err := suite.Find("throughput")
	if err != nil {
		t.Fatal(err)
	}
	err = e.Run(t.Context(), suite.Options{Set: map[string]string{"bytes": "1000"}})
	if want := "throughput: wrong setting: bytes=1000: want 1 KiB to 64 GiB"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if _, err := suite.Find("no-such"); err == nil {
		t.Error("an experiment that is not there is found")
	}
	for _, e := range suite.All() {
		names := make(map[string]bool)
		for _, s := range e.Settings {
			if names[s.Name] || s.Default == "" || s.Help == "" {
				t.Errorf("%s: setting %+v", e.Name, s)
			}
			names[s.Name] = true
		}
		if err := e.Check(t.Context(), suite.Options{Quick: true}); err != nil {
			t.Errorf("%s: its own settings are wrong: %v", e.Name, err)
		}
		if !names["reps"] || e.Summary == "" {
			t.Errorf("%s lacks reps or a summary", e.Name)
		}
	}
}
