package lambdaapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lambdaapi"
	"github.com/fnwire/fnwire/internal/job"
	relay "github.com/fnwire/fnwire/relay/server"
	"github.com/fnwire/fnwire/rendezvous"
	rdv "github.com/fnwire/fnwire/rendezvous/server"
)

// An instance can live in a host of the lab.
var _ lambdaapi.Process = (*lab.Proc)(nil)

// thawed is a freeze that a node notices: longer than 3 s and a tick.
const thawed = 5 * time.Second

// world is a rendezvous and a relay on loopback, and the example for Lambda, built.
type world struct {
	bootstrap, store string
	env              []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{bootstrap: filepath.Join(t.TempDir(), "bootstrap"), store: t.TempDir()}
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "lambda.norpc", "-o", w.bootstrap, "../../fnlib/examples/lambda")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	key := job.NewKey()
	s, err := rdv.New(rdv.Config{Listen: "127.0.0.1:0", Allow: []job.ID{key.ID()}, Lease: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, s.Run, s.Ready())
	r, err := relay.New(relay.Config{ID: "r1", Listen: netip.MustParseAddrPort("127.0.0.1:0"), TokenKey: s.TokenKey})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, r.Run, r.Ready())
	if err := s.AddRelay(rendezvous.RelayInfo{ID: "r1", Addr: r.Addr(), STUN: r.STUNAddrs()}); err != nil {
		t.Fatal(err)
	}
	w.env = []string{"FNWIRE_URL=" + s.URL(), "FNWIRE_JOB_KEY=" + key.Encode(), "FNWIRE_STORE=file://" + w.store}
	return w
}

// serve runs a server until the test ends.
func serve(t *testing.T, run func(context.Context) error, ready <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	select {
	case <-ready:
	case <-within(t).Done():
		t.Fatal("server not ready")
	}
}

// lambda is an instance of the example.
type lambda struct {
	*lambdaapi.Instance
	t   *testing.T
	out *output
}

func (w *world) lambda(t *testing.T, name string) *lambda {
	t.Helper()
	l := &lambda{t: t, out: &output{}}
	var err error
	l.Instance, err = lambdaapi.Start(lambdaapi.Config{
		Command: []string{w.bootstrap}, Env: append(w.env[:len(w.env):len(w.env)], "FNWIRE_NAME="+name), Output: l.out,
		Function: lambdaapi.Function{Name: name, Timeout: 10 * time.Second}, Init: 30 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Shutdown(within(t)); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("%s: %s", name, l.out)
		}
	})
	return l
}

// answer is the example's response.
type answer struct {
	Epoch    uint64
	Receipts []struct {
		Path, Stored, Error string
		Warm                bool
	}
	Received []struct{ From, Key, Text, Path string }
}

func (l *lambda) invoke(format string, args ...any) answer {
	l.t.Helper()
	r, err := l.Invoke(within(l.t), lambdaapi.Event{Payload: fmt.Appendf(nil, format, args...)})
	if err != nil || r.FunctionError != "" {
		l.t.Errorf("invoke: %s %s, %v", r.FunctionError, r.Payload, err)
		return answer{}
	}
	var a answer
	if err := json.Unmarshal(r.Payload, &a); err != nil {
		l.t.Errorf("%s: %v", r.Payload, err)
	}
	return a
}

func (l *lambda) frozen() {
	l.t.Helper()
	if err := l.WaitIdle(within(l.t)); err != nil {
		l.t.Fatal(err)
	}
}

// objects lists what is stored.
func (w *world) objects(t *testing.T) (found []string) {
	t.Helper()
	err := filepath.WalkDir(w.store, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(path, string(filepath.Separator)+"in"+string(filepath.Separator)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Two functions hand states over in several events each, frozen in between: they join once, and the link that they have made lives on,
// even through a freeze of both that lasts for seconds.
func TestLambda(t *testing.T) {
	w := newWorld(t)
	from, to := w.lambda(t, "map"), w.lambda(t, "reduce")
	var epochs [2]uint64
	for round := range 5 {
		var sent, got answer
		var both sync.WaitGroup
		both.Go(func() {
			sent = from.invoke(`{"send": [{"to": "reduce", "key": "a", "text": "%d"}, {"to": "reduce", "key": "b", "text": "%d"}]}`, round, round)
		})
		both.Go(func() { got = to.invoke(`{"receive": 2}`) })
		both.Wait()
		if len(sent.Receipts) != 2 || len(got.Received) != 2 {
			t.Fatalf("round %d: %+v, %+v", round, sent, got)
		}
		for i := range 2 {
			if s := got.Received[i]; s.From != "map" || s.Text != fmt.Sprint(round) || s.Path == "store" {
				t.Errorf("round %d: received %+v", round, s)
			}
			if rc := sent.Receipts[i]; rc.Stored != "" || rc.Error != "" || round > 0 && !rc.Warm {
				t.Errorf("round %d: %+v", round, rc)
			}
		}
		if now := [2]uint64{sent.Epoch, got.Epoch}; round == 0 {
			epochs = now
		} else if now != epochs {
			t.Errorf("round %d: epochs %v, then %v", round, epochs, now)
		}
		from.frozen()
		to.frozen()
		if round == 2 {
			time.Sleep(thawed) // of the event that is tested
		}
	}
	if u := to.Usage(); u.Invocations != 5 || u.Freezes < 5 || u.Frozen < thawed {
		t.Errorf("%+v", u)
	}
	if n := w.objects(t); len(n) != 0 {
		t.Errorf("stored: %v", n)
	}
}

// A function that has handed over nothing yet is ended: SIGTERM brings its states to the store, where their receiver finds them.
func TestLambdaSpills(t *testing.T) {
	w := newWorld(t)
	from := w.lambda(t, "map")
	from.invoke(`{"send": [{"to": "reduce", "key": "k", "text": "one"}, {"to": "reduce", "key": "k", "text": "two"}], "later": true}`)
	from.frozen()
	if n := w.objects(t); len(n) != 0 {
		t.Fatalf("stored before its end: %v", n)
	}
	if err := from.Shutdown(within(t)); err != nil {
		t.Fatal(err)
	}
	if n := w.objects(t); len(n) != 2 {
		t.Fatalf("stored: %v, want two states", n)
	}
	got := w.lambda(t, "reduce").invoke(`{"receive": 2}`)
	if len(got.Received) != 2 {
		t.Fatalf("%+v", got)
	}
	for _, s := range got.Received {
		if s.From != "map" || s.Path != "store" {
			t.Errorf("received %+v", s)
		}
	}
	if n := w.objects(t); len(n) != 0 {
		t.Errorf("left in the store: %v", n)
	}
}

// The receiver is ended while it is frozen, with a state under way to it that it has not seen. Its sender has it stored before its event is
// over, and the next instance of the receiver gets it.
func TestLambdaReceiverEnds(t *testing.T) {
	w := newWorld(t)
	from, to := w.lambda(t, "map"), w.lambda(t, "reduce")
	first := make(chan answer, 1)
	go func() { first <- to.invoke(`{"receive": 1}`) }()
	if sent := from.invoke(`{"send": [{"to": "reduce", "key": "k", "text": "first"}]}`); len(sent.Receipts) != 1 || sent.Receipts[0].Stored != "" {
		t.Fatalf("%+v", sent)
	}
	epoch := (<-first).Epoch
	to.frozen()
	from.frozen()
	sent := make(chan answer, 1)
	go func() { sent <- from.invoke(`{"send": [{"to": "reduce", "key": "k", "text": "second"}]}`) }()
	for from.Usage().Invocations < 2 { // until it has the event
		time.Sleep(time.Millisecond)
	}
	if err := to.Shutdown(within(t)); err != nil {
		t.Fatal(err)
	}
	if a := <-sent; len(a.Receipts) != 1 || a.Receipts[0].Stored == "" || a.Receipts[0].Error != "" {
		t.Fatalf("%+v", a)
	}
	got := w.lambda(t, "reduce").invoke(`{"receive": 1}`)
	if len(got.Received) != 1 || got.Received[0].Text != "second" || got.Received[0].Path != "store" || got.Epoch <= epoch {
		t.Errorf("%+v after epoch %d", got, epoch)
	}
}
