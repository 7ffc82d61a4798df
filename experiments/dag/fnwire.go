package dag

import (
	"context"
	"errors"
	"io"

	"github.com/fnwire/fnwire/fnlib"
)

// Small is up to how many bytes outputs go by relay, with Fnwire and Lazy.
const Small = 64 << 10

// overFnwire hands over from function to function: who is not the last at a fan-in waits for it, and sends it its output, which need not be whole for that.
type overFnwire struct {
	node *fnlib.Node
	// small is up to how many bytes outputs go by links that stay on the relay: who sends so little has no use for a direct path, and punching takes packets and CPU of both.
	small int64
	// early has executors link as soon as both are on their way to a fan-in, while their tasks run.
	early bool
}

// path is that for the output of the edge.
func (o overFnwire) path(e edge) fnlib.Path {
	if e.x.Schedule.size(e.from) <= o.small {
		return fnlib.RelayOnly
	}
	return fnlib.Auto
}

func (o overFnwire) begin(ctx context.Context, e edge) {
	if !o.early {
		return
	}
	e.x.background.Go(func() {
		var a Answer
		if err := e.x.board.post(ctx, "announce", e.ask(false, false), &a); err != nil {
			return // who brings something will say so
		}
		for _, name := range a.Coming {
			e.x.background.Go(func() { _, _ = o.node.Ping(ctx, name, o.path(e)) }) // who sends will link, if this has failed
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
	_, err = o.node.SendWith(ctx, a.Taker, e.key(e.from), e.out, fnlib.SendOptions{Path: o.path(e)})
	return nil, false, err
}

// receive waits for another input to begin.
func (o overFnwire) receive(ctx context.Context, e edge, from int) (io.Reader, error) {
	done := e.x.span("receive", from)
	got, err := o.node.Receive(ctx, fnlib.Key(e.key(from)))
	if err != nil {
		return nil, err
	}
	return until(got, func(err error) error {
		done()
		if errors.Is(err, io.EOF) {
			return got.Accept()
		}
		return err
	}), nil
}
