package demo_test

import (
	"os"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/demo"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/experiments/world"
)

func TestMain(m *testing.M) {
	if code, is := world.WorkerMain(os.Args); is {
		os.Exit(code)
	}
	_ = os.Setenv("GORACE", "atexit_sleep_ms=0") // workers built for race detection would sleep at their end
	os.Exit(labtest.Main(m))
}

func Example() {
	res := demo.Result{NAT: "port-restricted", Files: []string{"/go/bin/go", "/go/bin/gofmt"}, Seconds: 2.5, Rows: []demo.Row{
		{Way: demo.Direct, Bytes: 64 << 20, Path: "direct", FirstByteMS: 21.3, LastByteMS: 400, GoodputMbps: 1342.2, DigestsEqual: true},
		{Way: demo.Store, Bytes: 1 << 10, Path: "nats", FirstByteMS: 6, LastByteMS: 6, GoodputMbps: 1.4, DigestsEqual: true},
	}}
	if err := res.Print(os.Stdout); err != nil {
		panic(err)
	}
	// Output:
	// Two fresh functions for each row, behind two port-restricted NATs. State: go, gofmt.
	// Times count from the start of both functions: joining, or connecting to the store, is included.
	//
	//      way   state  path used  first byte  last byte      goodput  digests
	//   direct  64 MiB     direct       21 ms     400 ms  1.34 Gbit/s    equal
	//    store   1 KiB       nats        6 ms       6 ms  1.40 Mbit/s    equal
	//
	// 2.5 s in all
}

func TestRun(t *testing.T) {
	sizes := []int64{1 << 10, 1 << 20}
	var told []string
	res, err := demo.Run(t.Context(), demo.Config{Sizes: sizes, Progress: func(m string) { told = append(told, m) }})
	if err != nil {
		labtest.Unavailable(t, err)
	}
	ways := map[string]string{demo.Auto: "", demo.Direct: "direct", demo.Relay: "relay", demo.Store: "nats"}
	if want := len(ways) * len(sizes); len(res.Rows) != want || len(told) != want+1 {
		t.Fatalf("%d rows and %d messages, want %d and one more", len(res.Rows), len(told), want)
	}
	digests := make(map[int64]string)
	for _, r := range res.Rows {
		if !r.OK() || r.FirstByteMS <= 0 || r.LastByteMS < r.FirstByteMS || r.GoodputMbps <= 0 {
			t.Errorf("%+v", r)
		}
		if want := ways[r.Way]; want != "" && r.Path != want {
			t.Errorf("%s went over %s", r.Way, r.Path)
		}
		if d := digests[r.Bytes]; d != "" && d != r.SHA256 {
			t.Errorf("%s: digest of %d bytes differs from that of another way", r.Way, r.Bytes)
		}
		digests[r.Bytes] = r.SHA256
	}
	if f := res.Failed(); f != "" {
		t.Error(f)
	}
}

func TestEmpty(t *testing.T) {
	if res, err := demo.Run(t.Context(), demo.Config{Sizes: []int64{1, 0}}); err == nil {
		t.Errorf("a state of nothing: %+v", res)
	}
}

// A hand-over that is impossible is a row that says so; the others go on.
func TestImpossible(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: waits for direct paths that are not to be had")
	}
	res, err := demo.Run(t.Context(), demo.Config{Sizes: []int64{1 << 10}, NAT: lab.Symmetric})
	if err != nil {
		labtest.Unavailable(t, err)
	}
	for _, r := range res.Rows {
		if impossible := r.Way == demo.Direct; r.OK() == impossible {
			t.Errorf("%+v", r)
		}
	}
	if f := res.Failed(); !strings.HasPrefix(f, "direct, 1 KiB: ") || !strings.Contains(f, "direct path") {
		t.Errorf("failed: %q", f)
	}
}
