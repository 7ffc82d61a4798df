package worker

import (
	"context"
	"time"

	"github.com/fnwire/fnwire/experiments/crowd"
	"github.com/fnwire/fnwire/internal/ident"
)

const (
	opCrowdJoin  = "crowd-join"
	opCrowdOffer = "crowd-offer"
	opCrowdState = "crowd-state"

	opCrowdBind    = "crowd-bind"
	opCrowdForward = "crowd-forward"
)

// CrowdJoin has the instances of a worker of the role Crowd join, and returns how long each of them took.
func (c *Client) CrowdJoin(ctx context.Context, a crowd.JoinArgs) (took []time.Duration, err error) {
	return took, c.Call(ctx, opCrowdJoin, a, &took)
}

// CrowdOffer has them make offers, and returns when the last is answered.
func (c *Client) CrowdOffer(ctx context.Context, a crowd.OfferArgs) (o crowd.Offered, err error) {
	return o, c.Call(ctx, opCrowdOffer, a, &o)
}

// CrowdState returns what has become of them.
func (c *Client) CrowdState(ctx context.Context) (s crowd.State, err error) {
	return s, c.Call(ctx, opCrowdState, None{}, &s)
}

// CrowdBind gives each of them a session at the relay, and returns how they are addressed there.
func (c *Client) CrowdBind(ctx context.Context) (shorts []ident.Short, err error) {
	return shorts, c.Call(ctx, opCrowdBind, None{}, &shorts)
}

// CrowdForward has the first of them send by the relay, and returns how many packets they sent.
func (c *Client) CrowdForward(ctx context.Context, a crowd.ForwardArgs) (sent int64, err error) {
	return sent, c.Call(ctx, opCrowdForward, a, &sent)
}
