// Command lambda is a function for AWS Lambda (runtime provided.al2023) that hands states to other functions of its job and takes
// theirs. It joins once for each instance, lives through being frozen between events, and gives what it could not deliver to the
// store when it has to end. template.yaml says how to deploy it.
//
//	{"send": [{"to": "reduce", "key": "part-7", "text": "state"}]}  hands over, and answers with the receipts
//	{"send": [...], "later": true}                                  answers at once; the states are under way meanwhile
//	{"receive": 2}                                                  takes two states, or as many as come in time
package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/fnlib/store/open"
)

const (
	joinWithin = 5 * time.Second        // at init, for which Lambda allows 10 s
	grace      = 400 * time.Millisecond // after SIGTERM, since Lambda kills 500 ms later
	margin     = 500 * time.Millisecond // before an event's deadline, for the answer
)

type request struct {
	Send    []state `json:"send"`
	Later   bool    `json:"later"`
	Receive int     `json:"receive"`
}

// state is one that is to be sent, or was received.
type state struct {
	To   string `json:"to,omitempty"`
	From string `json:"from,omitempty"`
	Key  string `json:"key"`
	Text string `json:"text"`
	Path string `json:"path,omitempty"` // that it came by: direct, relay or store
}

type receipt struct {
	To     string `json:"to"`
	Key    string `json:"key"`
	Path   string `json:"path"`
	Stored string `json:"stored,omitempty"` // the store that keeps it for its receiver
	Warm   bool   `json:"warm"`             // over a link that was up before
	Error  string `json:"error,omitempty"`
}

type response struct {
	Epoch    uint64    `json:"epoch"` // of the name: another instance has another
	Receipts []receipt `json:"receipts,omitempty"`
	Received []state   `json:"received,omitempty"`
}

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	m, err := newMember(log)
	if err != nil {
		log.Error("init", "error", err)
		os.Exit(1)
	}
	// Without an extension Lambda would send no SIGTERM. This option registers one.
	lambda.StartWithOptions(m.handle, lambda.WithEnableSIGTERM(func() {
		m.close()
		os.Exit(0)
	}))
}

// member is this instance in the job.
type member struct {
	cfg fnlib.Config
	log *slog.Logger

	mu     sync.Mutex // guards what follows
	joined *fnlib.Node
}

// newMember opens the store and joins the job.
func newMember(log *slog.Logger) (*member, error) {
	m := &member{cfg: fnlib.FromEnv(), log: log}
	m.cfg.Logger, m.cfg.Grace = log, grace
	ctx, cancel := context.WithTimeout(context.Background(), joinWithin)
	defer cancel()
	if url := os.Getenv(fnlib.EnvStore); url != "" {
		s, err := open.URL(ctx, url)
		if err != nil {
			return nil, err
		}
		m.cfg.Store = s
	}
	if _, err := m.node(ctx); err != nil { // the first event tries again
		log.Warn("not joined at init", "error", err)
	}
	return m, nil
}

// node joins, unless the instance has joined and is not closed. It is when another instance has taken its name.
func (m *member) node(ctx context.Context) (*fnlib.Node, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.joined != nil && m.joined.Err() == nil {
		return m.joined, nil
	}
	n, err := fnlib.Join(ctx, m.cfg)
	if err != nil {
		return nil, err
	}
	m.joined = n
	return n, nil
}

// close stores what is not delivered, and leaves the job.
func (m *member) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.joined != nil {
		_ = m.joined.Close() // always nil
	}
}

func (m *member) handle(ctx context.Context, r request) (response, error) {
	n, err := m.node(ctx)
	if err != nil {
		return response{}, err
	}
	out := response{Epoch: n.Epoch()}
	if r.Later {
		for _, s := range r.Send {
			go m.send(context.Background(), n, s)
		}
		return out, nil
	}
	if t, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, t.Add(-margin))
		defer cancel()
	}
	out.Receipts = make([]receipt, len(r.Send))
	var sends sync.WaitGroup
	for i, s := range r.Send {
		sends.Go(func() { out.Receipts[i] = m.send(ctx, n, s) })
	}
	out.Received = m.receive(ctx, n, r.Receive)
	sends.Wait()
	if err := n.Flush(ctx); err != nil { // nothing is lost: peers hear the rest after the next event
		m.log.Info("frozen before all was said", "error", err)
	}
	return out, nil
}

func (m *member) send(ctx context.Context, n *fnlib.Node, s state) receipt {
	rc, err := n.Send(ctx, s.To, s.Key, strings.NewReader(s.Text))
	out := receipt{To: s.To, Key: s.Key, Path: rc.Path, Stored: rc.Stored, Warm: rc.Path != "rendezvous" && rc.Phases.Answer == 0 && rc.Phases.Link == 0}
	if err != nil {
		m.log.Error("not handed over", "to", s.To, "key", s.Key, "error", err)
		out.Error = err.Error()
	}
	return out
}

// receive takes count states, or those that come before ctx ends.
func (m *member) receive(ctx context.Context, n *fnlib.Node, count int) (got []state) {
	for len(got) < count {
		in, err := n.Receive(ctx)
		if err != nil {
			break
		}
		s := state{From: in.From, Key: in.Key, Path: in.Path()}
		text, err := io.ReadAll(in)
		if err == nil {
			err = in.Accept() // before the handler returns: the process is frozen then, and its sender waits
		}
		if err != nil {
			m.log.Error("not received", "from", s.From, "key", s.Key, "error", err)
			continue
		}
		s.Text = string(text)
		got = append(got, s)
	}
	return got
}
