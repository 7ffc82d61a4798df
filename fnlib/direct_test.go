package fnlib_test

import (
	"fmt"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/natsim"
	"github.com/fnwire/fnwire/transport/punch"
)

var portRestricted = natsim.Kind{Filtering: natsim.AddressPortDependent}

// confirmed is when a side has answered a probe of full size that nominates a path: from then on it trusts the
// path both ways, and sends data there.
func (w *bubble) confirmed() (read func() time.Time) {
	var first time.Time
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = func(_, to netip.AddrPort, b []byte) {
		if to != relayMain && b[0] == punch.TypeReply && len(b) == punch.PaddedSize && first.IsZero() {
			first = time.Now()
		}
	}
	return func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		return first
	}
}

// TestDirectPath: both behind port-restricted NATs, which let in only what answers. The answer leaves one round
// trip after the call, and a direct path is confirmed two round trips later. On it a message takes half of one.
func TestDirectPath(t *testing.T) {
	for _, rtt := range []time.Duration{rtt, 70 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond} {
		for _, lower := range []bool{true, false} {
			t.Run(fmt.Sprintf("rtt %v caller lower %v", rtt, lower), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { directPath(t, rtt, lower) })
			})
		}
	}
}

func directPath(t *testing.T, rtt time.Duration, lower bool) {
	w := newBubble(t, rtt)
	a, b := w.functions(lower, [2]*natsim.NAT{w.nat(1, portRestricted), w.nat(2, portRestricted)})
	m, _ := b.join()
	l, err := m.Listen("x")
	if err != nil {
		t.Fatal(err)
	}
	n, _ := a.join()
	time.Sleep(time.Second)
	confirmed := w.confirmed()
	called := time.Now()
	c, err := n.Dial(t.Context(), "b:x")
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * rtt)
	answered := called.Add(rtt)
	want := 2 * rtt
	if lower {
		// The answering side's probes are lost until the answer has come and the caller's NAT is open. The first one
		// after that has the caller nominate where it came from.
		gap := 30 * time.Millisecond
		for gap < rtt/2 {
			gap *= 2
		}
		want = rtt + gap
	}
	if got := confirmed().Sub(answered); got != want || got > 2*rtt {
		t.Errorf("confirmed %v after the answer left, %.3f round trips; want %v", got, float64(got)/float64(rtt), want)
	}
	for _, e := range []*fnlib.Conn{c, d.(*fnlib.Conn)} {
		if st := e.Link(); st.Path != "direct" {
			t.Errorf("link is %+v", st)
		}
	}
	said := time.Now()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(d, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(said); took != rtt/2 {
		t.Errorf("on the direct path a byte took %v, want half of %v", took, rtt)
	}
}

// TestDirectPathAtOnce: nobody has joined yet. Offer and answer leave before their senders know their mapped
// addresses, which follow through the relay: they are known after two round trips, at the other side after
// three, and a path is confirmed one later.
func TestDirectPathAtOnce(t *testing.T) {
	eachOrder(t, func(t *testing.T, lower bool) {
		w := newBubble(t, rtt)
		confirmed := w.confirmed()
		a, b := w.functions(lower, [2]*natsim.NAT{w.nat(1, portRestricted), w.nat(2, portRestricted)})
		first := make(chan (<-chan time.Time), 1)
		go func() {
			m, _ := b.join()
			first <- receiving(t, m)
		}()
		n, asked := a.join(calls("b"))
		send(t, n, "b", "state")
		exactly(t, "first byte", (<-<-first).Sub(asked), 3)
		time.Sleep(10 * rtt)
		exactly(t, "direct path", confirmed().Sub(asked), 4)
	})
}
