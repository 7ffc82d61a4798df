package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/fnwire/fnwire/experiments/faas"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

func TestSDK(t *testing.T) {
	dir := t.TempDir()
	build(t, filepath.Join(dir, "bootstrap"), "-C", "../../..", "./experiments/faas/echo")
	for name, test := range map[string]func(*testing.T, string){
		"invoke": testInvoke, "failures": testFailures, "errors": testErrors, "event": testEvent, "program": testProgram,
	} {
		t.Run(name, func(t *testing.T) { test(t, dir) })
	}
}

// build compiles a program, without symbols, as functions are deployed.
func build(t *testing.T, out string, args ...string) {
	t.Helper()
	i := len(args) - 1
	args = append(append([]string{"build"}, args[:i]...), "-ldflags=-s -w", "-o", out, args[i])
	if said, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, said)
	}
}

// cloud is a platform on a lab's host "public", and the SDK's client on a host behind a NAT.
type cloud struct {
	*lambda.Client
	t        *testing.T
	lab      *lab.Lab
	platform *faas.Platform
	endpoint string

	mu      sync.Mutex // guards records
	records []faas.Record
}

// newCloud has the function "echo", for which there are two hosts, and "one", which may have one event at a time.
func newCloud(t *testing.T, dir string) *cloud {
	t.Helper()
	l := labtest.New(t, lab.Host{Name: "public"}, lab.Host{Name: "client", NAT: lab.PortRestricted},
		lab.Host{Name: "a", NAT: lab.PortRestricted}, lab.Host{Name: "b", NAT: lab.Symmetric})
	c := &cloud{t: t, lab: l}
	p, err := faas.New(faas.Config{
		Lab: l, Hosts: []string{"a", "b"},
		Functions: []faas.Function{
			{Name: "echo", Dir: dir, Timeout: 2 * time.Second, MemoryMB: 512}, {Name: "one", Dir: dir, Timeout: 30 * time.Second, Concurrency: 1},
		},
		Async: faas.Async{Delay: time.Millisecond},
		Record: func(r faas.Record) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.records = append(c.records, r)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var listener net.Listener
	if err := l.Do("public", func() (err error) { listener, err = net.Listen("tcp4", ":9000"); return err }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	c.platform, c.endpoint = p, fmt.Sprintf("http://%v:9000", l.Addr("public"))
	tr := &http.Transport{DialContext: func(_ context.Context, network, addr string) (conn net.Conn, err error) {
		err = l.Do("client", func() (err error) { conn, err = net.Dial(network, addr); return err })
		return conn, err
	}}
	t.Cleanup(tr.CloseIdleConnections)
	c.Client = newClient(c.endpoint, &http.Client{Transport: tr})
	return c
}

// invocations returns the records of an event's attempts, in order.
func (c *cloud) invocations(request string) (all []faas.Invocation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.records {
		if v := r.Invocation; v != nil && v.Request == request {
			all = append(all, *v)
		}
	}
	return all
}

// reply is the function's.
type reply struct {
	Instance  string
	Count     int
	RequestID string `json:"request_id"`
	MemoryMB  int    `json:"memory_mb"`
	Client    string
	Echo      string
}

func (c *cloud) invoke(in lambda.InvokeInput) (*lambda.InvokeOutput, reply) {
	c.t.Helper()
	out, err := c.Invoke(c.t.Context(), &in)
	if err != nil {
		c.t.Fatal(err)
	}
	var r reply
	_ = json.Unmarshal(out.Payload, &r)
	return out, r
}

// An SDK invokes a function that aws-lambda-go runs, cold, thawed and after it was reclaimed.
func testInvoke(t *testing.T, dir string) {
	c := newCloud(t, dir)
	var instances []string
	for i, want := range []faas.Start{faas.Cold, faas.Thawed, faas.Cold} {
		if i == 2 {
			if n, err := c.platform.Reclaim(t.Context(), "echo"); n != 1 || err != nil {
				t.Errorf("reclaimed %d, %v", n, err)
			}
		}
		out, r := c.invoke(lambda.InvokeInput{
			FunctionName: aws.String("echo"), Payload: []byte(`{"echo": "hello", "print": "said"}`), LogType: types.LogTypeTail,
			ClientContext: aws.String(base64.StdEncoding.EncodeToString([]byte(`{"client": {"app_title": "test"}}`))),
		})
		if out.StatusCode != 200 || aws.ToString(out.ExecutedVersion) != "$LATEST" || out.FunctionError != nil {
			t.Errorf("%+v", out)
		}
		if r.Echo != "hello" || r.MemoryMB != 512 || r.Client != "test" || r.Count != []int{1, 2, 1}[i] {
			t.Errorf("%+v", r)
		}
		log, err := base64.StdEncoding.DecodeString(aws.ToString(out.LogResult))
		if err != nil || !strings.Contains(string(log), "said\nEND RequestId: "+r.RequestID+"\nREPORT ") || !strings.HasSuffix(string(log), "Start: "+string(want)+"\n") {
			t.Errorf("log %q, %v", log, err)
		}
		v := c.invocations(r.RequestID)
		if len(v) != 1 || v[0].Start != want || !strings.HasSuffix(r.Instance, v[0].Instance) {
			t.Errorf("%+v of %+v", v, r)
		}
		instances = append(instances, r.Instance)
	}
	if instances[0] != instances[1] || instances[1] == instances[2] {
		t.Errorf("instances %q", instances)
	}
}

func testFailures(t *testing.T, dir string) {
	c := newCloud(t, dir)
	for payload, want := range map[string]string{
		`{"error": "no"}`:         `"errorMessage":"no"`,
		`{"panic": "at noon"}`:    `"errorMessage":"at noon"`,
		`{"exit": 3}`:             `exit status 3`,
		`{"sleep_ms": 60000}`:     `Task timed out after 2.00 seconds`,
		`{"fill": 6000000}`:       `Response payload size exceeded`,
		`{"sleep_ms": "a while"}`: `json`,
	} {
		out, _ := c.invoke(lambda.InvokeInput{FunctionName: aws.String("echo"), Payload: []byte(payload)})
		if out.StatusCode != 200 || aws.ToString(out.FunctionError) != "Unhandled" || !strings.Contains(string(out.Payload), want) {
			t.Errorf("%s: %d, %s: %s", payload, out.StatusCode, aws.ToString(out.FunctionError), out.Payload)
		}
	}
	out, _ := c.invoke(lambda.InvokeInput{FunctionName: aws.String("echo"), InvocationType: types.InvocationTypeDryRun})
	if out.StatusCode != 204 {
		t.Errorf("dry run: %d", out.StatusCode)
	}
}

// Errors are of the types that the SDK knows.
func testErrors(t *testing.T, dir string) {
	c := newCloud(t, dir)
	once := func(o *lambda.Options) { o.RetryMaxAttempts = 1 }
	large := []byte(`"` + strings.Repeat("x", faas.MaxSync) + `"`)
	_, err := c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("none")}, once)
	if e := (*types.ResourceNotFoundException)(nil); !errors.As(err, &e) || !strings.Contains(e.ErrorMessage(), "Function not found: arn:") {
		t.Errorf("no such function: %v", err)
	}
	_, err = c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("echo"), Payload: large}, once)
	if e := (*types.RequestTooLargeException)(nil); !errors.As(err, &e) {
		t.Errorf("too large: %v", err)
	}
	_, err = c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("echo"), Payload: large[:faas.MaxAsync+1], InvocationType: types.InvocationTypeEvent}, once)
	if e := (*types.RequestTooLargeException)(nil); !errors.As(err, &e) {
		t.Errorf("too large to queue: %v", err)
	}
	_, err = c.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("echo"), Payload: []byte("{")}, once)
	if e := (*types.InvalidRequestContentException)(nil); !errors.As(err, &e) {
		t.Errorf("not JSON: %v", err)
	}
	// While "one" has an event, another is throttled; the SDK by itself tries again until it is not.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		for {
			_, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("one"), Payload: []byte(`{"sleep_ms": 700}`)}, once)
			if e := (*types.TooManyRequestsException)(nil); !errors.As(err, &e) {
				done <- err
				return
			}
		}
	}()
	for busy := false; !busy; {
		_, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("one")}, once)
		e := (*types.TooManyRequestsException)(nil)
		if busy = errors.As(err, &e); busy && e.Reason != types.ThrottleReasonReservedFunctionConcurrentInvocationLimitExceeded {
			t.Errorf("throttled because of %s", e.Reason)
		}
		if err != nil && !busy {
			t.Fatal(err)
		}
	}
	if _, err := c.Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("one")}, func(o *lambda.Options) { o.RetryMaxAttempts = 20 }); err != nil {
		t.Errorf("with retries: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A queued event that fails is tried three times.
func testEvent(t *testing.T, dir string) {
	c := newCloud(t, dir)
	out, _ := c.invoke(lambda.InvokeInput{FunctionName: aws.String("echo"), InvocationType: types.InvocationTypeEvent, Payload: []byte(`{"error": "no"}`)})
	if out.StatusCode != 202 {
		t.Errorf("%+v", out)
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		c.mu.Lock()
		n := len(c.records)
		last := faas.Record{}
		if n > 0 {
			last = c.records[n-1]
		}
		c.mu.Unlock()
		if d := last.Dropped; d != nil {
			if d.Attempts != 3 || d.Why != "retries" || len(c.invocations(d.Request)) != 3 {
				t.Errorf("%+v", d)
			}
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("it is not dropped")
}

// The program, run on a host of the lab.
func testProgram(t *testing.T, dir string) {
	c := newCloud(t, dir)
	exe := filepath.Join(t.TempDir(), "awsclient")
	build(t, exe, ".")
	cmd := exec.Command(exe, "echo", `{"echo": "from a program"}`)
	cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL_LAMBDA="+c.endpoint)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	p, err := c.lab.Start(t.Context(), "client", cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil || !strings.Contains(stdout.String(), `"echo":"from a program"`) || !strings.Contains(stderr.String(), "REPORT RequestId: ") {
		t.Errorf("%v: %s%s", err, stdout.String(), stderr.String())
	}
	if err := run(t.Context(), "", nil, &stdout, &stderr); err == nil {
		t.Error("ran without arguments")
	}
}
