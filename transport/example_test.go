package transport_test

import (
	"context"
	"fmt"
	"io"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/transport"
)

// Two endpoints link directly. What each must know of the other (identity, nonce, candidates) travels in
// verified offers and answers; here they are in one process.
func Example() {
	ctx, key := context.Background(), job.NewKey()
	var eps [2]*transport.Endpoint
	for i := range eps {
		id, err := ident.New()
		if err != nil {
			fmt.Println(err)
			return
		}
		eps[i], err = transport.Open(transport.Config{Identity: id, Key: key, Listen4: loopback, NoIPv6: true})
		if err != nil {
			fmt.Println(err)
			return
		}
	}
	defer eps[0].Close()
	defer eps[1].Close()
	for i, e := range eps {
		o := eps[1-i]
		peer := transport.Peer{ID: o.PeerID(), Nonce: o.Nonce(), Candidates: o.Candidates()}
		if err := e.Admit(peer, transport.Auto, false); err != nil {
			fmt.Println(err)
			return
		}
	}
	go func() {
		l, err := eps[0].Link(ctx, eps[1].PeerID(), transport.Auto)
		if err != nil {
			return
		}
		if s, err := l.OpenStream(ctx); err == nil {
			_, _ = s.Write([]byte("state"))
			_ = s.CloseWrite()
		}
	}()
	l, err := eps[1].Link(ctx, eps[0].PeerID(), transport.Auto)
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := l.AcceptStream(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	b, err := io.ReadAll(s)
	fmt.Println(string(b), err, l.Status().Path)
	// Output: state <nil> direct
}
