package fnlib

import (
	"context"
	"fmt"
	"iter"
	"strings"
)

// Filter chooses states by sender and key.
type Filter func(from, key string) bool

// From chooses the states of one sender.
func From(name string) Filter { return func(from, _ string) bool { return from == name } }

// Key chooses the states of one key.
func Key(key string) Filter { return func(_, k string) bool { return k == key } }

// KeyPrefix chooses the states whose key begins so.
func KeyPrefix(prefix string) Filter {
	return func(_, k string) bool { return strings.HasPrefix(k, prefix) }
}

// Receive waits for the next state that all filters choose; without filters any. States arrive as their streams do, those in
// Config.Store when the node joins or as they are stored; many may be
// read at the same time, and those that wait for their turn, taken or not, do not hold up those that are read. A state that its sender gives up
// before anybody takes it is never received, unless it has come early (Config.EarlyBytes), up to 5 s before. Of those in the store 1024 at most wait at a time: if filters leave so many of them, the rest stays there. Receive may be called by many
// goroutines, with different filters: each state goes to one. Errors match ErrClosed, ErrFenced or the context's.
func (n *Node) Receive(ctx context.Context, want ...Filter) (*Incoming, error) {
	for {
		in, more := n.inbound.take(want)
		if in != nil {
			if in.stored != nil {
				n.refill()
			}
			return in, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, fmt.Errorf("fnlib: receive: %w", ctx.Err())
		case <-n.ctx.Done():
			return nil, fmt.Errorf("fnlib: receive: %w", n.Err())
		}
	}
}

// States calls Receive again and again, for use in a loop. It ends after the first error, which it yields.
func (n *Node) States(ctx context.Context, want ...Filter) iter.Seq2[*Incoming, error] {
	return func(yield func(*Incoming, error) bool) {
		for {
			in, err := n.Receive(ctx, want...)
			if !yield(in, err) || err != nil {
				return
			}
		}
	}
}
