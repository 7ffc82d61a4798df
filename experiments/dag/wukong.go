package dag

import (
	"bytes"
	"context"
	"io"
	"net/netip"

	"github.com/fnwire/fnwire/experiments/peer/wukong3"
)

// WukongConfig is what a function must know that hands over as the literature's slow port did.
type WukongConfig struct {
	Coordinator netip.AddrPort `json:"coordinator"`
	Certificate []byte         `json:"certificate"` // the coordinator's, in DER
	Causes      wukong3.Causes `json:"causes"`
	// Early has the executor with a task's first input be claimed for the task, wherever the others are: it waits for them, and is billed for that, however late they
	// are. Otherwise it is claimed when all are there, as for the other ways.
	Early bool `json:"early,omitempty"`
}

// overWukong hands over by pairings, each with the key of its edge.
type overWukong struct {
	node  *wukong3.Node
	early bool
}

func (c WukongConfig) open(ctx context.Context) (handOff, error) {
	n, err := wukong3.Open(ctx, wukong3.Config{Coordinator: c.Coordinator, Certificate: c.Certificate, Causes: c.Causes})
	if err != nil {
		return nil, err
	}
	return overWukong{n, c.Early}, nil
}

func (overWukong) begin(context.Context, *executor, []edge) {}

func (o overWukong) end(context.Context) error { return o.node.Close() }

func (o overWukong) bring(ctx context.Context, e edge) (map[int]io.Reader, bool, error) {
	// Pairings begin when outputs are whole: a sender tells its size.
	var own []byte
	if e.from != invoked {
		var err error
		if own, err = io.ReadAll(e.out); err != nil {
			return nil, false, err
		}
	}
	takes := e.from == invoked || e.more == 0 && e.from == e.to.In[0]
	if !o.early {
		a, err := e.arrive(ctx, false, true)
		if err != nil {
			return nil, false, err
		}
		takes = a.Last
	}
	if !takes {
		defer e.x.span("send", e.from)()
		_, err := o.node.Send(ctx, e.key(e.from), bytes.NewReader(own), int64(len(own)))
		return nil, false, err
	}
	in := make(map[int]io.Reader)
	for _, from := range e.to.In {
		if from != e.from {
			in[from] = e.x.later(func() (io.Reader, error) { return o.receive(ctx, e, from) })
		}
	}
	if own != nil {
		in[e.from] = bytes.NewReader(own)
	}
	return in, true, nil
}

func (o overWukong) receive(ctx context.Context, e edge, from int) (io.Reader, error) {
	defer e.x.span("receive", from)()
	var b bytes.Buffer
	_, err := o.node.Receive(ctx, e.key(from), &b)
	return &b, err
}
