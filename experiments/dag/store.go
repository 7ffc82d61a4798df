package dag

import (
	"bytes"
	"context"
	"io"

	"github.com/fnwire/fnwire/fnlib/store"
)

// overStore hands over by a store, as Wukong 2.0 does: who is not the last at a fan-in puts its output and ends, and the last gets those of the
// others. What is not needed is not put (Wukong's delayed I/O): an executor looks first whether it is the last.
type overStore struct{ store store.Store }

func (overStore) begin(context.Context, *executor, []edge) {}

func (overStore) end(context.Context) error { return nil }

func (o overStore) bring(ctx context.Context, e edge) (map[int]io.Reader, bool, error) {
	var own *bytes.Buffer // the output, if it is put
	a, err := e.arrive(ctx, true, false)
	if err == nil && !a.Last {
		if e.from != invoked {
			own = new(bytes.Buffer)
			if err := o.put(ctx, e, own); err != nil {
				return nil, false, err
			}
		}
		a, err = e.arrive(ctx, false, e.from == invoked)
	}
	if err != nil || !a.Last {
		return nil, false, err
	}
	in := make(map[int]io.Reader)
	if own != nil {
		in[e.from] = own
	}
	for from := range a.Others {
		if from == invoked {
			continue
		}
		in[from] = e.x.later(func() (io.Reader, error) { return o.get(ctx, e, from) })
	}
	return in, true, nil
}

// get opens another input.
func (o overStore) get(ctx context.Context, e edge, from int) (io.Reader, error) {
	done := e.x.span("receive", from)
	object, _, err := o.store.Get(ctx, e.key(from), 0)
	if err != nil {
		return nil, err
	}
	return until(object, func(error) error {
		done()
		e.x.background.Go(func() { _ = o.store.Delete(context.WithoutCancel(ctx), e.key(from)) }) // or the store's room is used up sooner
		return object.Close()
	}), nil
}

// put puts the output of the edge, and keeps it, in case that the executor is the last after all.
func (o overStore) put(ctx context.Context, e edge, own *bytes.Buffer) error {
	defer e.x.span("send", e.from)()
	return o.store.Put(ctx, e.key(e.from), io.TeeReader(e.out, own), store.PutOptions{})
}
