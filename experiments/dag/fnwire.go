package dag

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/fnlib"
)

// overFnwire hands over from function to function: who is not the last at a fan-in waits for it, and sends it its output, which need not be whole for that.
type overFnwire struct {
	node *fnlib.Node
	path fnlib.Path
	// early has executors link as soon as both are on their way to a fan-in, while their tasks run.
	early bool
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
			e.x.background.Go(func() { _, _ = o.node.Ping(ctx, name, o.path) }) // who sends will link, if this has failed
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
		in, err := o.receive(ctx, e, a)
		return in, true, err
	}
	defer e.x.span("send", e.from)()
	_, err = o.node.SendWith(ctx, a.Taker, e.key(e.from), e.out, fnlib.SendOptions{Path: o.path})
	return nil, false, err
}

// receive waits for the other inputs to begin.
func (o overFnwire) receive(ctx context.Context, e edge, a Answer) (map[int]io.Reader, error) {
	in := make(map[int]io.Reader)
	var mu sync.Mutex // guards in
	all, actx := errgroup.WithContext(ctx)
	for from := range a.Others {
		all.Go(func() error {
			done := e.x.span("receive", from)
			got, err := o.node.Receive(ctx, fnlib.Key(e.key(from)))
			if err != nil {
				return errors.Join(err, actx.Err())
			}
			mu.Lock()
			defer mu.Unlock()
			in[from] = until(got, func(err error) error {
				done()
				if errors.Is(err, io.EOF) {
					return got.Accept()
				}
				return err
			})
			return nil
		})
	}
	return in, all.Wait()
}
