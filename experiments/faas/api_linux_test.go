package faas_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/faas"
	"github.com/fnwire/fnwire/experiments/lab"
)

// serve serves the Invoke API on the host "public", and returns a client that is there, too, and its base.
func (b *bench) serve() (client *http.Client, base string) {
	var l net.Listener
	err := b.lab.Do("public", func() (err error) { l, err = net.Listen("tcp4", ":9000"); return err })
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, l) }()
	tr := &http.Transport{DialContext: func(_ context.Context, network, addr string) (c net.Conn, err error) {
		err = b.lab.Do("public", func() (err error) { c, err = net.Dial(network, addr); return err })
		return c, err
	}}
	b.t.Cleanup(func() {
		tr.CloseIdleConnections()
		cancel()
		if err := <-served; err != nil {
			b.t.Error(err)
		}
	})
	return &http.Client{Transport: tr}, fmt.Sprintf("http://%v:9000/2015-03-31/functions/", b.lab.Addr("public"))
}

// answer is one of the Invoke API.
type answer struct {
	status int
	header http.Header
	body   string
}

// The Invoke API, as Lambda answers.
func TestInvokeAPI(t *testing.T) {
	b := start(t, 1, func(c *faas.Config) { c.Functions[1].Concurrency = 1 })
	client, base := b.serve()
	post := func(name, body string, header ...string) answer {
		t.Helper()
		req, err := http.NewRequest("POST", base+name+"/invocations", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		said, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer{resp.StatusCode, resp.Header, string(said)}
	}
	const kind = "X-Amz-Invocation-Type"
	for _, c := range []struct {
		name, body string
		header     []string
		status     int
		failure    string // X-Amzn-ErrorType, or X-Amz-Function-Error
		says       string
	}{
		{"a", `{}`, nil, 200, "", `"Count":1`},
		{"a", ``, nil, 200, "", `"Count":2`},
		{"arn:aws:lambda:us-east-1:000000000000:function:a:$LATEST", `{}`, []string{kind, "RequestResponse"}, 200, "", `"Count":3`},
		{"a", `{"Do":"error"}`, nil, 200, "Unhandled", `"errorType":"Own"`},
		{"a", `{}`, []string{kind, "DryRun"}, 204, "", ""},
		{"c", `{}`, nil, 404, "ResourceNotFoundException", "Function not found: arn:aws:lambda:us-east-1:000000000000:function:c"},
		{"c", `{}`, []string{kind, "DryRun"}, 404, "ResourceNotFoundException", `"Type":"User"`},
		{"a:7", `{}`, nil, 404, "ResourceNotFoundException", "a:7"},
		{"a", `{`, nil, 400, "InvalidRequestContentException", "json"},
		{"a", `{}`, []string{kind, "Perhaps"}, 400, "InvalidParameterValueException", "RequestResponse"},
		{"a", `{}`, []string{"X-Amz-Client-Context", "e30"}, 400, "InvalidRequestContentException", "base64"},
		{"a", `{}`, []string{"X-Amz-Client-Context", "e30="}, 200, "", ""},
		{"a", `"` + strings.Repeat("x", faas.MaxSync) + `"`, nil, 413, "RequestTooLargeException", "6291456"},
		{"a", `"` + strings.Repeat("x", faas.MaxAsync) + `"`, []string{kind, "Event"}, 413, "RequestTooLargeException", "1048576"},
		{"a", `{}`, []string{kind, "Event"}, 202, "", ""},
		{"a/b", `{}`, nil, 404, "UnknownOperationException", ""},
	} {
		got := post(c.name, c.body, c.header...)
		failure := got.header.Get("X-Amzn-ErrorType") + got.header.Get("X-Amz-Function-Error")
		if got.status != c.status || failure != c.failure || !strings.Contains(got.body, c.says) {
			t.Errorf("%s %.40s %v: %+v", c.name, c.body, c.header, got)
		}
		if ok := got.status == 200 || got.status == 202; ok && got.header.Get("X-Amzn-Requestid") == "" {
			t.Errorf("%s %.40s: no ID: %v", c.name, c.body, got.header)
		}
	}
	b.until("the queued event", func(r faas.Record) bool { return r.Invocation != nil && r.Invocation.Async })
	got := post("a", `{}`, "X-Amz-Log-Type", "Tail")
	if tail, err := base64.StdEncoding.DecodeString(got.header.Get("X-Amz-Log-Result")); err != nil || !strings.Contains(string(tail), "\nREPORT RequestId: ") {
		t.Errorf("tail %q, %v", tail, err)
	}
	g := newGate(t, b.dir)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if got := post("b", string(payload(order{Wait: g.path()}))); got.status != 200 {
			t.Errorf("%+v", got)
		}
	}()
	held := g.next()
	for name, want := range map[string]string{"a": "ConcurrentInvocationLimitExceeded", "b": "ReservedFunctionConcurrentInvocationLimitExceeded"} {
		got := post(name, `{}`)
		var told struct{ Reason, Type, Message string }
		if err := json.Unmarshal([]byte(got.body), &told); err != nil || got.status != 429 ||
			got.header.Get("X-Amzn-ErrorType") != "TooManyRequestsException" || told.Reason != want || told.Message != "Rate Exceeded." {
			t.Errorf("%s: %+v", name, got)
		}
	}
	held.Close()
	<-done
}

func TestConfig(t *testing.T) {
	b := start(t, 1, nil)
	good, err := function(t.TempDir(), "f")
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*faas.Config){
		"no lab":               func(c *faas.Config) { c.Lab = nil },
		"no hosts":             func(c *faas.Config) { c.Hosts = nil },
		"no host \"x\"":        func(c *faas.Config) { c.Hosts = []string{"x"} },
		"given twice":          func(c *faas.Config) { c.Hosts = []string{"p", "p"} },
		"negative":             func(c *faas.Config) { c.Idle = -1 },
		"two functions named":  func(c *faas.Config) { c.Functions = append(c.Functions, good) },
		"letters":              func(c *faas.Config) { c.Functions[0].Name = "a b" },
		"MB of memory":         func(c *faas.Config) { c.Functions[0].MemoryMB = 64 },
		"at most 15m0s":        func(c *faas.Config) { c.Functions[0].Timeout = 1e15 },
		"NAT of kind cgn":      func(c *faas.Config) { c.Functions[0].NAT = lab.CGN },
		"unknown NAT kind":     func(c *faas.Config) { c.Functions[0].NAT = "brick" },
		"go build -o":          func(c *faas.Config) { c.Functions[0].Dir = t.TempDir() },
		"concurrency that is ": func(c *faas.Config) { c.Functions[0].Concurrency = -1 },
	} {
		cfg := faas.Config{Lab: b.lab, Hosts: []string{"p"}, Functions: []faas.Function{good}}
		change(&cfg)
		if _, err := faas.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want something with %q", err, want)
		}
	}
}
