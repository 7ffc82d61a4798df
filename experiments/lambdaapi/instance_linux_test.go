package lambdaapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/experiments/lambdaapi"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(envFunction); kind != "" {
		function(kind)
	}
	goleak.VerifyTestMain(m)
}

// output is what an instance has printed.
type output struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start starts an instance of this test binary.
func start(t testing.TB, kind string, change ...func(*lambdaapi.Config)) (*lambdaapi.Instance, *output) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := &output{}
	cfg := lambdaapi.Config{
		Command: []string{self}, Env: []string{envFunction + "=" + kind}, Output: out,
		Function: lambdaapi.Function{Name: "f", MemoryMB: 256, Timeout: 20 * time.Second},
	}
	for _, c := range change {
		c(&cfg)
	}
	i, err := lambdaapi.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Shutdown(within(t)); err != nil {
			t.Error(err)
		}
	})
	return i, out
}

// within returns a context that no test should ever see end.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func invoke(t testing.TB, i *lambdaapi.Instance, o order) (lambdaapi.Result, report) {
	t.Helper()
	payload, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := i.Invoke(within(t), lambdaapi.Event{Payload: payload, ClientContext: `{"a":1}`})
	if err != nil {
		t.Fatal(err)
	}
	var rep report
	_ = json.Unmarshal(r.Payload, &rep)
	return r, rep
}

// What a function is told, and what is told of it.
func TestInvoke(t *testing.T) {
	i, out := start(t, "plain")
	r, rep := invoke(t, i, order{Do: "report"})
	h := rep.Headers
	switch {
	case r.FunctionError != "" || !r.Cold || r.ContentType != "application/json":
		t.Errorf("%+v", r)
	case h.Get("Lambda-Runtime-Aws-Request-Id") != r.ID || h.Get("Lambda-Runtime-Client-Context") != `{"a":1}` ||
		!strings.HasPrefix(h.Get("Lambda-Runtime-Trace-Id"), "Root=1-") ||
		h.Get("Lambda-Runtime-Invoked-Function-Arn") != "arn:aws:lambda:us-east-1:000000000000:function:f":
		t.Errorf("headers %v", h)
	}
	for _, want := range []string{"AWS_LAMBDA_FUNCTION_NAME=f", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=256", "_HANDLER=bootstrap"} {
		if !slices.Contains(rep.Env, want) {
			t.Errorf("no %s in %q", want, rep.Env)
		}
	}
	if slices.ContainsFunc(rep.Env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		t.Error("the environment of the platform is handed down")
	}
	for _, c := range []struct{ do, kind, payload string }{
		{"error", "Own", `{"errorMessage":"no","errorType":"Own"}`},
		{"break", "Reader", `{"a":1}`},
		{"large", "Function.ResponseSizeTooLarge", ""},
		{"twice", "", ""},
	} {
		r, _ := invoke(t, i, order{Do: c.do})
		if r.FunctionError != c.kind || c.payload != "" && string(r.Payload) != c.payload || r.Cold {
			t.Errorf("%s: %.200s, %+v", c.do, r.Payload, r.FunctionError)
		}
	}
	if _, rep := invoke(t, i, order{Do: "late"}); rep.Told != "403 403 400 403 403" {
		t.Errorf("refusals: %s", rep.Told)
	}
	if said := out.String(); !strings.Contains(said, "response 413 ") || !strings.Contains(said, "again 400") {
		t.Errorf("output %q", said)
	}
	if _, err := i.Invoke(within(t), lambdaapi.Event{Payload: make([]byte, lambdaapi.MaxPayload+1)}); !errors.Is(err, lambdaapi.ErrTooLarge) {
		t.Errorf("an event that is too long: %v", err)
	}
	if u := i.Usage(); u.Invocations != 6 || u.Init <= 0 || u.Busy <= 0 {
		t.Errorf("%+v", u)
	}
}

// Many events at once are given one after the other.
func TestInvokeInTurn(t *testing.T) {
	i, _ := start(t, "plain")
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if r, _ := invoke(t, i, order{}); r.FunctionError != "" {
				t.Errorf("%s", r.Payload)
			}
		})
	}
	all.Wait()
	if u := i.Usage(); u.Invocations != 20 {
		t.Errorf("%+v", u)
	}
}

// state is that of a process as the kernel tells: T for stopped.
func state(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return after[:1]
}

func TestFreeze(t *testing.T) {
	i, _ := start(t, "extension")
	for round := range 3 {
		r, rep := invoke(t, i, order{})
		if (r.Frozen > 0) != (round > 0) {
			t.Errorf("round %d: frozen for %v", round, r.Frozen)
		}
		if busy := <-r.Busy; busy < r.Duration {
			t.Errorf("round %d: busy for %v, and it answered after %v", round, busy, r.Duration)
		}
		if err := i.WaitIdle(within(t)); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); state(t, rep.PID) != "T" && time.Now().Before(deadline); { // threads stop one by one
			time.Sleep(time.Millisecond)
		}
		if s := state(t, rep.PID); s != "T" {
			t.Fatalf("round %d: state %s, want T", round, s)
		}
	}
	if u := i.Usage(); u.Freezes < 3 || u.Frozen <= 0 {
		t.Errorf("%+v", u)
	}
}

func TestFreezeByCgroup(t *testing.T) {
	group, err := lambdaapi.NewCgroup(fmt.Sprintf("fnwire-test-%d", os.Getpid()))
	if errors.Is(err, lambdaapi.ErrNoCgroup) && os.Getenv("FNWIRE_CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	i, _ := start(t, "plain", func(c *lambdaapi.Config) { c.Freezer = group })
	_, first := invoke(t, i, order{})
	if err := i.WaitIdle(within(t)); err != nil {
		t.Fatal(err)
	}
	if _, second := invoke(t, i, order{}); second.PID != first.PID {
		t.Errorf("process %d, then %d", first.PID, second.PID)
	}
	if err := i.WaitIdle(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := i.Shutdown(within(t)); err != nil { // of a frozen process
		t.Fatal(err)
	}
	if err := group.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
}

// SIGTERM is for processes that have registered an extension.
func TestShutdown(t *testing.T) {
	for kind, polite := range map[string]bool{"plain": false, "extension": true} {
		i, out := start(t, kind)
		invoke(t, i, order{})
		if err := i.WaitIdle(within(t)); err != nil {
			t.Fatal(err)
		}
		if err := i.Shutdown(within(t)); err != nil {
			t.Fatal(err)
		}
		if said := out.String(); strings.Contains(said, "terminated") != polite || strings.Contains(said, "INVOKE") != polite {
			t.Errorf("%s: %q", kind, said)
		}
		if err := i.Err(); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := i.Invoke(within(t), lambdaapi.Event{}); !errors.Is(err, lambdaapi.ErrEnded) {
			t.Errorf("%s: invoke: %v", kind, err)
		}
		if err := i.WaitIdle(within(t)); !errors.Is(err, lambdaapi.ErrEnded) {
			t.Errorf("%s: wait: %v", kind, err)
		}
	}
}

// Functions that fail.
func TestFailures(t *testing.T) {
	for name, c := range map[string]struct {
		kind, do, want, say string
		change              func(*lambdaapi.Config)
	}{
		"exit":         {"plain", "exit", "Runtime.ExitError", "exit status 7", nil},
		"timeout":      {"plain", "hang", "Sandbox.Timedout", "timed out after 0.20 seconds", func(c *lambdaapi.Config) { c.Function.Timeout = 200 * time.Millisecond }},
		"init error":   {"dies", "", "Init.Disk", "no disk", nil},
		"init timeout": {"sleeps", "", "Sandbox.Timedout", "init took longer", func(c *lambdaapi.Config) { c.Init = 200 * time.Millisecond }},
	} {
		change := c.change
		if change == nil {
			change = func(*lambdaapi.Config) {}
		}
		i, _ := start(t, c.kind, change)
		r, _ := invoke(t, i, order{Do: c.do})
		if r.FunctionError != c.want || !strings.Contains(string(r.Payload), c.say) {
			t.Errorf("%s: %s %s", name, r.FunctionError, r.Payload)
		}
		if busy, u := <-r.Busy, i.Usage(); busy != u.Busy || (busy > 0) != (u.Invocations > 0) || u.Init <= 0 {
			t.Errorf("%s: busy %v, %+v", name, busy, u)
		}
		<-i.Done()
		<-i.Ready()
		if i.Err() == nil {
			t.Errorf("%s: no error", name)
		}
		_, err := i.Invoke(within(t), lambdaapi.Event{}) // an init that has failed is told to all
		if initial := strings.HasPrefix(name, "init"); errors.Is(err, lambdaapi.ErrEnded) == initial || !initial && err == nil {
			t.Errorf("%s: invoked again: %v", name, err)
		}
	}
	if _, err := lambdaapi.Start(lambdaapi.Config{}); err == nil {
		t.Error("started nothing")
	}
	if _, err := lambdaapi.Start(lambdaapi.Config{Command: []string{"/does/not/exist"}}); err == nil {
		t.Error("started what does not exist")
	}
}

// An event whose invoker gives up before the process got it is not given.
func TestWithdraw(t *testing.T) {
	i, _ := start(t, "plain", func(c *lambdaapi.Config) { c.Function.Timeout = 30 * time.Second })
	ctx, cancel := context.WithCancel(t.Context())
	hung := make(chan error, 1)
	go func() {
		_, err := i.Invoke(ctx, lambdaapi.Event{Payload: []byte(`{"Do":"hang"}`)})
		hung <- err
	}()
	<-i.Ready()
	for i.Usage().Invocations == 0 { // until it is given
		time.Sleep(time.Millisecond)
	}
	late, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := i.Invoke(late, lambdaapi.Event{Payload: []byte(`{}`)}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another is at hand: %v", err)
	}
	cancel()
	if err := <-hung; !errors.Is(err, context.Canceled) {
		t.Errorf("invoke: %v", err)
	}
	if u := i.Usage(); u.Invocations != 1 {
		t.Errorf("%+v", u)
	}
}
