package crowd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Ten instances join a rendezvous, and half of what they offer goes to names that nobody holds.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	key := job.NewKey()
	s, err := server.New(server.Config{Allow: []job.ID{key.ID()}})
	if err != nil {
		fmt.Println(err)
		return
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()

	var c Crowd
	took, err := c.Join(ctx, JoinArgs{URL: s.URL(), Key: key.Encode(), Count: 10})
	fmt.Println(len(took), err)
	o, err := c.Offer(ctx, OfferArgs{Rate: 200, For: 100 * time.Millisecond, Parked: 50, All: 10})
	fmt.Println(len(o.Delivered), len(o.Parked), o.Failed, err)
	_, err = c.Join(ctx, JoinArgs{URL: s.URL(), Key: key.Encode(), Count: 1})
	fmt.Println(err)

	state, err := c.State(ctx, struct{}{})
	fmt.Println(state.Joined, state.Lost, state.Refused, err)
	fmt.Println(c.Close())
	cancel()
	fmt.Println(<-done)
	// Output:
	// 10 <nil>
	// 10 10 0 <nil>
	// crowd: has joined before
	// 10 0 0 <nil>
	// <nil>
	// <nil>
}

func TestSchedule(t *testing.T) {
	a := OfferArgs{Rate: 500, For: 10 * time.Second, Parked: 10, All: 3}
	if err := a.Check(); err != nil || a.count() != 5000 || a.due(250) != 500*time.Millisecond {
		t.Errorf("%v: %d offers, one of them after %v", err, a.count(), a.due(250))
	}
	parked := make(map[string]int)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range a.count() {
		to := a.to(i, "one-1", random)
		if a.parks(i) {
			parked[to]++
		} else if to != "one-0" && to != "one-2" {
			t.Fatalf("an offer of one-1 to %s", to)
		}
	}
	total := 0
	for name, n := range parked {
		if total += n; n > parkedAtOne || !strings.HasPrefix(name, "nobody-") {
			t.Errorf("%d parked at %s", n, name)
		}
	}
	if total != 500 {
		t.Errorf("%d parked", total)
	}
}

func TestArgs(t *testing.T) {
	good := OfferArgs{Rate: 1, For: time.Second, All: 2}
	for what, spoil := range map[string]func(*OfferArgs){
		"rate": func(a *OfferArgs) { a.Rate = 0 }, "none": func(a *OfferArgs) { a.For = time.Millisecond },
		"many": func(a *OfferArgs) { a.Rate, a.For = 1<<20, 2*time.Second }, "share": func(a *OfferArgs) { a.Parked = 101 }, "alone": func(a *OfferArgs) { a.All = 1 },
	} {
		a := good
		if spoil(&a); a.Check() == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	var c Crowd
	if _, err := c.Offer(t.Context(), good); err == nil {
		t.Error("nobody has offered")
	}
	for _, a := range []JoinArgs{{}, {Count: 1, First: -1}, {Count: mostJoined + 1}, {Count: 1, Key: "x"}} {
		if _, err := c.Join(t.Context(), a); err == nil {
			t.Errorf("%+v: accepted", a)
		}
	}
	// A join that fails half-way leaves nothing.
	if _, err := c.Join(t.Context(), JoinArgs{Count: 2, Key: job.NewKey().Encode(), URL: "nats://127.0.0.1:1"}); err == nil {
		t.Error("joined nothing")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestForwardArgs(t *testing.T) {
	good := ForwardArgs{To: make([]ident.Short, 4), Bytes: 1200, Rate: 128000, For: time.Second}
	if err := good.Check(); err != nil || good.due(1000) != time.Second {
		t.Errorf("%v: a thousand bursts of each of four take %v", err, good.due(1000))
	}
	for what, spoil := range map[string]func(*ForwardArgs){
		"nobody": func(a *ForwardArgs) { a.To = nil }, "size": func(a *ForwardArgs) { a.Bytes = 9000 }, "rate": func(a *ForwardArgs) { a.Rate = 0 },
		"long": func(a *ForwardArgs) { a.For = 2 * time.Minute },
	} {
		a := good
		if spoil(&a); a.Check() == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	var c Crowd
	if _, err := c.Forward(t.Context(), good); err == nil {
		t.Error("nobody has sent")
	}
	if _, err := c.Bind(t.Context(), struct{}{}); err == nil {
		t.Error("nobody has bound")
	}
}
