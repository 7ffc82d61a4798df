package dag

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/fnwire/fnwire/fnlib"
)

// Small is up to how many bytes outputs go by relay, with Fnwire and Lazy.
const Small = 64 << 10

// overFnwire hands over from function to function: who is not the last at a fan-in waits for it, and sends it its output, which need not be whole for that.
type overFnwire struct {
	node *fnlib.Node
	// small is up to how many bytes outputs go by links that stay on the relay: who sends so little has no use for a direct path, and punching takes packets and CPU of both.
	small int64
	// ahead has executors link as soon as both are on their way to a fan-in, while their tasks run.
	ahead bool
	// early is up to how many bytes outputs may go by the rendezvous: no links are made ahead for them.
	early int64
}

// path is that for the output of the edge.
func (o overFnwire) path(e edge) fnlib.Path {
	if e.x.Schedule.size(e.made()) <= o.small {
		return fnlib.RelayOnly
	}
	return fnlib.Auto
}

func (o overFnwire) begin(ctx context.Context, x *executor, to []edge) {
	to = slices.DeleteFunc(to, func(e edge) bool { return !o.ahead || x.Schedule.size(e.made()) <= o.early })
	if len(to) == 0 {
		return
	}
	asks := make([]Ask, len(to))
	for i, e := range to {
		asks[i] = e.ask(false, false)
	}
	x.background.Go(func() {
		var answers []Answer
		if err := x.board.post(ctx, "announce", asks, &answers); err != nil || len(answers) != len(asks) {
			return // who brings something will say so
		}
		for i, a := range answers {
			for _, name := range a.Coming {
				x.background.Go(func() { _, _ = o.node.Ping(ctx, name, o.path(to[i])) }) // who sends will link, if this has failed
			}
		}
	})
}

// end has the last word of what was received go out: peers would wait for it until this function is thawed.
func (o overFnwire) end(ctx context.Context) error { return o.node.Flush(ctx) }

func (o overFnwire) bring(ctx context.Context, e edge) (map[int]io.Reader, bool, error) {
	a, err := e.arrive(ctx, false, true)
	switch {
	case err != nil:
		return nil, false, err
	case a.Last:
		in := make(map[int]io.Reader)
		for from := range a.Others {
			if from != invoked {
				in[from] = e.x.later(func() (io.Reader, error) { return o.receive(ctx, e, from) })
			}
		}
		return in, true, nil
	}
	defer e.x.span("send", e.from)()
	out := e.out
	if e.x.Schedule.size(e.from) <= o.early { // what is not whole does not go early
		b, err := io.ReadAll(out)
		if err != nil {
			return nil, false, err
		}
		out = bytes.NewReader(b)
	}
	_, err = o.node.SendWith(ctx, a.Taker, e.key(e.from), out, fnlib.SendOptions{Path: o.path(e)})
	return nil, false, err
}

// receive waits for another input to begin.
func (o overFnwire) receive(ctx context.Context, e edge, from int) (io.Reader, error) {
	done := e.x.span("receive", from)
	got, err := o.node.Receive(ctx, fnlib.Key(e.key(from)))
	if err != nil {
		return nil, err
	}
	if got.Size >= 0 && got.Size <= o.early {
		// At once, since its sender makes a link if it has no receipt soon.
		b, err := io.ReadAll(got)
		if err == nil {
			done()
			err = got.Accept()
		}
		return bytes.NewReader(b), err
	}
	stop := context.AfterFunc(ctx, func() { _ = got.SetReadDeadline(time.Now()) }) // an executor that has failed reads no more
	return until(got, func(err error) error {
		stop()
		done()
		if errors.Is(err, io.EOF) {
			return got.Accept()
		}
		return err
	}), nil
}
