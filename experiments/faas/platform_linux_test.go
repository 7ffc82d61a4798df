package faas_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/faas"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) {
	switch os.Getenv(envFunction) {
	case "":
	case "harness":
		runHarness()
	default:
		runFunction()
	}
	os.Exit(labtest.Main(m))
}

// Cold, thawed, warm and reclaimed instances are told apart.
func TestStarts(t *testing.T) {
	b := start(t, 2, func(c *faas.Config) { c.Functions[1].NoFreeze, c.Functions[1].NAT = true, lab.Symmetric })
	for name, again := range map[string]faas.Start{"a": faas.Thawed, "b": faas.Warm} {
		first, rep := b.invoke(name, order{})
		second, same := b.invoke(name, order{})
		n, err := b.Reclaim(t.Context(), name)
		if err != nil || n != 1 {
			t.Errorf("reclaimed %d, %v", n, err)
		}
		third, other := b.invoke(name, order{})
		if same.PID != rep.PID || same.Count != 2 || other.Count != 1 || first.Instance != second.Instance || second.Instance == third.Instance {
			t.Errorf("%+v, then %+v, then %+v", rep, same, other)
		}
		if rep.API != "127.0.0.1:9001" {
			t.Errorf("the Runtime API is at %s", rep.API)
		}
		for i, r := range []faas.Response{first, second, third} {
			v := b.of(r)
			want := []faas.Start{faas.Cold, again, faas.Cold}[i]
			if v.Start != want || (v.InitMS > 0) != (want == faas.Cold) || (v.FrozenMS > 0) != (want == faas.Thawed) {
				t.Errorf("%s %d: %+v", name, i, v)
			}
			if v.DurationMS <= 0 || v.BusyMS < v.DurationMS || v.MaxRSS < 1<<20 || v.MaxRSS > 100<<20 || v.MemoryMB != 128 || v.Error != "" {
				t.Errorf("%s %d: %+v", name, i, v)
			}
			if exact := v.InitMS + v.BusyMS; float64(v.BilledMS) < exact || float64(v.BilledMS) >= exact+1 || v.GBSeconds != float64(v.BilledMS)/8000 {
				t.Errorf("%s %d: bill of %+v", name, i, v)
			}
			if addr := b.lab.Addr(v.Host).String(); i == 0 && !strings.Contains(rep.Addrs, addr) {
				t.Errorf("it has the addresses %s, and is to be at %s", rep.Addrs, addr)
			}
			if name == "b" && v.NAT != lab.Symmetric {
				t.Errorf("behind a NAT of kind %s", v.NAT)
			}
		}
		if e := b.ended(first.Instance); e.Why != faas.WhyTold || e.Invocations != 2 || e.InitMS <= 0 || e.BusyMS <= 0 || (e.Freezes > 0) != (name == "a") {
			t.Errorf("%+v", e)
		}
	}
	if total := b.Totals()["a"]; total.Requests != 3 || total.Cold != 2 || total.GBSeconds <= 0 {
		t.Errorf("%+v", total)
	}
}

// What a function prints is in its log, between the lines that Lambda writes.
func TestLog(t *testing.T) {
	b := start(t, 1, nil)
	r, _ := b.invoke("a", order{Do: "print"})
	tail := string(r.Log)
	if len(tail) != 4096 || !strings.Contains(tail, "xxx\nno newline\nEND RequestId: "+r.ID+"\nREPORT RequestId: "+r.ID+"\tDuration: ") ||
		!strings.HasSuffix(tail, "\tStart: cold\n") || !strings.Contains(tail, "\tInit Duration: ") {
		t.Errorf("tail of %d bytes: %s", len(tail), tail)
	}
	b.invoke("a", order{Do: "error"})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	kept, err := os.ReadFile(filepath.Join(b.logs, "a", r.Instance+".log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"START RequestId: " + r.ID + " Version: $LATEST\n", "init\n", tail, "Status: error\tError Type: \"Own\"\tStart: thawed\n"} {
		if !strings.Contains(string(kept), want) {
			t.Errorf("no %q in the log %s", want, kept)
		}
	}
}

func TestConcurrency(t *testing.T) {
	b := start(t, 2, func(c *faas.Config) { c.Functions[1].Concurrency = 1 })
	g := newGate(t, b.dir)
	var all sync.WaitGroup
	hold := func(name string) net.Conn {
		all.Go(func() {
			if r, err := b.try(name, order{Wait: g.path()}); err != nil || r.FunctionError != "" {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
		})
		return g.next()
	}
	first := hold("b")
	if _, err := b.try("b", order{}); !errors.Is(err, faas.ErrThrottled) {
		t.Errorf("more than the function may have: %v", err)
	}
	second := hold("a")
	if _, err := b.try("a", order{}); !errors.Is(err, faas.ErrThrottled) {
		t.Errorf("more than there are hosts: %v", err)
	}
	if total := b.Totals(); total["a"].Throttled != 1 || total["b"].Throttled != 1 || total["b"].Requests != 0 {
		t.Errorf("%+v", total)
	}
	first.Close()
	second.Close()
	all.Wait()
	// Both hosts have instances, of which that of "b" has to make room.
	held := hold("a")
	r, _ := b.invoke("a", order{})
	if v := b.of(r); v.Start != faas.Cold {
		t.Errorf("%+v", v)
	}
	e := b.until("room", func(r faas.Record) bool { return r.Instance != nil })
	if e.Instance.Function != "b" || e.Instance.Why != faas.WhyRoom {
		t.Errorf("%+v", e.Instance)
	}
	held.Close()
	all.Wait()
}

// One event after another needs one instance, however soon they come, and many at once get no more than there are hosts.
func TestInTurn(t *testing.T) {
	b := start(t, 3, nil)
	for range 20 {
		b.invoke("a", order{})
	}
	if total := b.Totals()["a"]; total.Cold != 1 {
		t.Errorf("%+v", total)
	}
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			if r, err := b.try("b", order{}); err != nil && !errors.Is(err, faas.ErrThrottled) || r.FunctionError != "" {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
	all.Wait()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if total := b.Totals()["b"]; total.Requests+total.Throttled != 30 || total.Requests < 3 {
		t.Errorf("%+v", total)
	}
}

func TestFailures(t *testing.T) {
	b := start(t, 1, func(c *faas.Config) {
		c.Functions[0].Timeout = 300 * time.Millisecond
		c.Functions[1].Env = []string{envFunction + "=broken"}
	})
	for _, c := range []struct {
		name, do, kind, says, why string
	}{
		{"a", "error", "Own", `"no"`, ""},
		{"a", "exit", "Runtime.ExitError", "exit status 7", faas.WhyExited},
		{"a", "hang", "Sandbox.Timedout", "timed out after 0.30 seconds", faas.WhyTimedOut},
		{"b", "", "Init.Disk", "no disk", faas.WhyExited},
	} {
		r, _ := b.invoke(c.name, order{Do: c.do})
		if r.FunctionError != c.kind || !strings.Contains(string(r.Payload), c.says) {
			t.Errorf("%s: %+v: %s", c.do, r.FunctionError, r.Payload)
		}
		v := b.of(r)
		if v.Error != c.kind || v.BilledMS < 1 || c.do == "hang" && v.BusyMS < 300 {
			t.Errorf("%s: %+v", c.do, v)
		}
		if c.why != "" {
			if e := b.ended(r.Instance); e.Why != c.why {
				t.Errorf("%s: %+v", c.do, e)
			}
		}
	}
	if total := b.Totals()["a"]; total.Errors != 3 {
		t.Errorf("%+v", total)
	}
	for name, req := range map[string]faas.Request{
		"no function": {Function: "c"},
		"not JSON":    {Function: "a", Payload: []byte("{")},
		"too large":   {Function: "a", Payload: make([]byte, faas.MaxSync+1)},
	} {
		want := map[string]error{"no function": faas.ErrNoFunction, "not JSON": faas.ErrNotJSON, "too large": faas.ErrTooLarge}[name]
		if _, err := b.Invoke(t.Context(), req); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := b.Enqueue(req); !errors.Is(err, want) {
			t.Errorf("%s, queued: %v", name, err)
		}
	}
}

// Instances that wait are reclaimed after a time, or when their time is up.
func TestReclaim(t *testing.T) {
	for why, change := range map[string]func(*faas.Config){
		faas.WhyIdle: func(c *faas.Config) { c.Idle = time.Millisecond },
		faas.WhyAge:  func(c *faas.Config) { c.Lifetime = time.Millisecond },
	} {
		b := start(t, 1, change)
		r, _ := b.invoke("a", order{})
		if e := b.ended(r.Instance); e.Why != why {
			t.Errorf("%+v, want %s", e, why)
		}
		if r, _ := b.invoke("a", order{}); b.of(r).Start != faas.Cold {
			t.Errorf("%s: %+v", why, b.of(r))
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Each instance has a /tmp of its own.
func TestTemp(t *testing.T) {
	b := start(t, 1, nil)
	for _, want := range []int{1, 2, 1} { // files there, after it has made one more
		if r, rep := b.invoke("a", order{Do: "temp"}); rep.Files != want {
			t.Errorf("%d files in /tmp, want %d: %s", rep.Files, want, r.Payload)
		}
		if want == 2 {
			if _, err := b.Reclaim(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "of-a-function-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// What a function has started ends with its instance.
func TestDaemon(t *testing.T) {
	b := start(t, 1, nil)
	g := newGate(t, b.dir)
	b.invoke("a", order{Do: "daemon", Wait: g.path()})
	daemon := g.next()
	if n, err := b.Reclaim(t.Context(), "a"); n != 1 || err != nil {
		t.Errorf("reclaimed %d, %v", n, err)
	}
	if err := daemon.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := daemon.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("it lives: %v", err)
	}
}

// runHarness is a program that has a platform, and a function that waits at the socket given.
func runHarness() {
	if err := lab.Enter(); err != nil {
		panic(err)
	}
	l, err := lab.New(context.Background(), lab.Spec{Hosts: []lab.Host{{Name: "p"}}})
	if err != nil {
		panic(err)
	}
	f := faas.Function{Name: "a", Dir: os.Args[1], Env: []string{envFunction + "=a"}, Timeout: patience}
	p, err := faas.New(faas.Config{Lab: l, Hosts: []string{"p"}, Functions: []faas.Function{f}})
	if err != nil {
		panic(err)
	}
	_, err = p.Invoke(context.Background(), faas.Request{Function: "a", Payload: payload(order{Wait: os.Args[2]})})
	panic(err)
}

// A function does not outlive a platform that is killed.
func TestKilled(t *testing.T) {
	labtest.New(t, lab.Host{Name: "p"}) // which tells why if there can be none
	dir := shortDir(t)
	g := newGate(t, dir)
	f, err := function(dir, "a")
	if err != nil {
		t.Fatal(err)
	}
	harness := exec.Command("/proc/self/exe", f.Dir, g.path())
	harness.Env = append(os.Environ(), envFunction+"=harness")
	harness.Stderr = os.Stderr
	if err := harness.Start(); err != nil {
		t.Fatal(err)
	}
	c := g.next()
	if err := errors.Join(harness.Process.Kill(), c.SetReadDeadline(time.Now().Add(patience))); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("it lives: %v", err)
	}
	_ = harness.Wait()
}

// Queued events are handled, tried again, and dropped.
func TestQueue(t *testing.T) {
	b := start(t, 1, func(c *faas.Config) {
		c.Async = faas.Async{Delay: time.Millisecond, Throttle: time.Millisecond, Queue: 2}
	})
	g := newGate(t, b.dir)
	enqueue := func(o order) (string, error) { return b.Enqueue(faas.Request{Function: "a", Payload: payload(o)}) }
	id, err := enqueue(order{Do: "error"})
	if err != nil {
		t.Fatal(err)
	}
	dropped := b.until("a dropped event", func(r faas.Record) bool { return r.Dropped != nil })
	if d := dropped.Dropped; d.Request != id || d.Attempts != 3 || d.Why != "retries" {
		t.Errorf("%+v", d)
	}
	last := b.until("the third attempt", func(r faas.Record) bool { return r.Invocation != nil && r.Invocation.Attempt == 3 }).Invocation
	if !last.Async || last.Request != id || last.Error != "Own" {
		t.Errorf("%+v", last)
	}
	if _, err := enqueue(order{Wait: g.path()}); err != nil {
		t.Fatal(err)
	}
	held := g.next()
	id, err = enqueue(order{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enqueue(order{}); !errors.Is(err, faas.ErrQueueFull) {
		t.Errorf("queued more than may be: %v", err)
	}
	b.until("a throttled event", func(r faas.Record) bool {
		return r.Invocation != nil && r.Invocation.Request == id && r.Invocation.Error == faas.Throttled
	})
	held.Close()
	b.until("the event at last", func(r faas.Record) bool {
		return r.Invocation != nil && r.Invocation.Request == id && r.Invocation.Error == ""
	})
}

// Close ends what runs, and drops what is queued.
func TestClose(t *testing.T) {
	b := start(t, 1, nil)
	g := newGate(t, b.dir)
	done := make(chan faas.Response, 1)
	go func() {
		r, _ := b.try("a", order{Wait: g.path()})
		done <- r
	}()
	g.next()
	if _, err := b.Enqueue(faas.Request{Function: "b"}); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.FunctionError != "Runtime.ExitError" {
		t.Errorf("%+v", r)
	}
	if e := b.until("the end", func(r faas.Record) bool { return r.Instance != nil }).Instance; e.Why != faas.WhyClosed {
		t.Errorf("%+v", e)
	}
	if d := b.until("the drop", func(r faas.Record) bool { return r.Dropped != nil }).Dropped; d.Why != "closed" {
		t.Errorf("%+v", d)
	}
	if _, err := b.try("a", order{}); !errors.Is(err, faas.ErrClosed) {
		t.Errorf("invoke: %v", err)
	}
	if _, err := b.Enqueue(faas.Request{Function: "a"}); !errors.Is(err, faas.ErrClosed) {
		t.Errorf("enqueue: %v", err)
	}
}

// BenchmarkInvoke is how long an invocation takes its caller, by the kind of start.
func BenchmarkInvoke(b *testing.B) {
	for _, kind := range []faas.Start{faas.Cold, faas.Thawed, faas.Warm} {
		b.Run(string(kind), func(b *testing.B) {
			p := start(b, 1, func(c *faas.Config) { c.Functions[0].NoFreeze = kind == faas.Warm })
			p.invoke("a", order{})
			for b.Loop() {
				if kind == faas.Cold {
					b.StopTimer()
					if _, err := p.Reclaim(b.Context(), "a"); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
				p.invoke("a", order{})
			}
			total := p.Totals()["a"]
			b.ReportMetric(float64(total.BilledMS)/float64(total.Requests), "billed-ms/op")
		})
	}
}
