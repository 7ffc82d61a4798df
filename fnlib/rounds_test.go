package fnlib_test

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/natsim"
	relayframe "github.com/fnwire/fnwire/relay"
	"github.com/fnwire/fnwire/rendezvous"
)

const rtt = 40 * time.Millisecond

func calls(names ...string) func(*fnlib.Config) {
	return func(c *fnlib.Config) { c.Call = names }
}

// receiving takes states in until the node is closed, and tells when the first byte of each was there.
func receiving(t *testing.T, n *fnlib.Node) <-chan time.Time {
	first := make(chan time.Time, 16)
	go func() {
		for {
			in, err := n.Receive(t.Context())
			if err != nil {
				return
			}
			if _, err := io.ReadFull(in, make([]byte, 1)); err != nil {
				t.Error(err)
				return
			}
			first <- time.Now()
			if _, err := io.Copy(io.Discard, in); err != nil {
				t.Error(err)
			}
			if err := in.Accept(); err != nil {
				t.Error(err)
			}
		}
	}()
	return first
}

func send(t *testing.T, n *fnlib.Node, to string, state string) fnlib.Receipt {
	t.Helper()
	rc, err := n.Send(t.Context(), to, "state", strings.NewReader(state))
	if err != nil {
		t.Error(err)
	}
	return rc
}

// eachOrder runs a test with the caller as the lower and as the higher identity: as QUIC's client and server.
func eachOrder(t *testing.T, test func(t *testing.T, lower bool)) {
	for _, lower := range []bool{true, false} {
		t.Run(fmt.Sprintf("caller lower %v", lower), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, lower) })
		})
	}
}

func exactly(t *testing.T, what string, got time.Duration, rounds float64) {
	t.Helper()
	if want := time.Duration(rounds * float64(rtt)); got != want {
		t.Errorf("%s after %v, %.3f round trips; want %v", what, got, float64(got)/float64(rtt), rounds)
	}
}

// TestFirstByte: with connections to NATS up and nobody joined yet, the first byte of a state is at the receiver
// after three round trips. One joins and offers; one carries offer and answer, and QUIC's handshake with them;
// half a round trip to the relay and half from there carry the rest of it and the first byte.
func TestFirstByte(t *testing.T) {
	eachOrder(t, func(t *testing.T, lower bool) {
		w := newBubble(t, rtt)
		unproven := w.watchUnproven()
		a, b := w.functions(lower, [2]*natsim.NAT{})
		first := make(chan time.Time, 1)
		go func() {
			if n, _ := b.join(); n != nil {
				first <- <-receiving(t, n)
			}
		}()
		n, asked := a.join(calls("b"))
		exactly(t, "joined", time.Since(asked), 2)
		rc := send(t, n, "b", "state")
		exactly(t, "first byte", (<-first).Sub(asked), 3)
		exactly(t, "receipt", time.Since(asked), 4)
		if rc.Path != "relay" {
			t.Errorf("path %s", rc.Path)
		}
		unproven()
	})
}

// TestFirstByteBeforeBind: what the caller says in the first round trip may be at the relay before the other side has bound. The relay says
// so, half a round trip later, and it goes again, rather than by QUIC's timer, which is at 200 ms.
func TestFirstByteBeforeBind(t *testing.T) {
	eachOrder(t, func(t *testing.T, lower bool) {
		w := newBubble(t, rtt)
		a, b := w.functions(lower, [2]*natsim.NAT{})
		late := true
		w.mu.Lock()
		var bind bool
		w.sent = func(from, to netip.AddrPort, p []byte) { bind = from == b.socket.addr && p[0] == relayframe.TypeBind }
		w.lose = func(netip.AddrPort) bool { // so that it is sent again after 100 ms
			lost := bind && late
			late = late && !bind
			return lost
		}
		w.mu.Unlock()
		first := make(chan time.Time, 1)
		go func() {
			if n, _ := b.join(); n != nil {
				first <- <-receiving(t, n)
			}
		}()
		n, asked := a.join(calls("b"))
		send(t, n, "b", "state")
		// b asks again at 1 r and 100 ms, and can be reached half a round trip later, at 4 r. What a has sent at 2 r the relay refuses, and
		// a hears of it at 3 r: it sends again 2, 6, 14 and 30 ms later, and this is at the relay at 4 r and 10 ms.
		exactly(t, "first byte", (<-first).Sub(asked), 4.75)
	})
}

// watchUnproven counts what the relay gets from each address and sends there before it has sent BOUND, which is
// when it takes the address for proven. What it returns tells.
func (w *bubble) watchUnproven() (check func()) {
	type count struct {
		in, out int
		proven  bool
	}
	counts := make(map[netip.AddrPort]*count)
	at := func(a netip.AddrPort) *count {
		if counts[a] == nil {
			counts[a] = &count{}
		}
		return counts[a]
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.received = func(at_ netip.AddrPort, from netip.AddrPort, b []byte) {
		if at_ == relayMain {
			at(from).in += len(b)
		}
	}
	w.sent = func(from, to netip.AddrPort, b []byte) {
		if from != relayMain {
			return
		}
		c := at(to)
		if b[0] == relayframe.TypeBound {
			c.proven = true
		}
		if c.out += len(b); !c.proven && c.out > 3*c.in {
			w.t.Errorf("%d bytes to %v before it is proven, %d from there", c.out, to, c.in)
		}
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(counts) < 2 {
			w.t.Errorf("%d addresses at the relay", len(counts))
		}
		for a, c := range counts {
			if c.out == 0 || !c.proven {
				w.t.Errorf("%v: %+v", a, *c)
			}
		}
	}
}

// TestFirstByteLater: a receiver that joins long after the sender finds its offer with the join's answer. The
// flight in that offer is too old, so QUIC's handshake begins after the answer.
func TestFirstByteLater(t *testing.T) {
	eachOrder(t, func(t *testing.T, lower bool) {
		w := newBubble(t, rtt)
		a, b := w.functions(lower, [2]*natsim.NAT{})
		sent := make(chan struct{})
		n, _ := a.join(calls("b"))
		go func() {
			defer close(sent)
			send(t, n, "b", "state")
		}()
		time.Sleep(5 * time.Minute)
		m, asked := b.join()
		first := <-receiving(t, m)
		<-sent
		if lower { // a dials when it has the answer
			exactly(t, "first byte", first.Sub(asked), 5)
		} else { // b has dialled with its answer
			exactly(t, "first byte", first.Sub(asked), 3)
		}
	})
}

// TestFirstByteSooner: a receiver that has joined before is called without notice.
func TestFirstByteSooner(t *testing.T) {
	eachOrder(t, func(t *testing.T, lower bool) {
		w := newBubble(t, rtt)
		a, b := w.functions(lower, [2]*natsim.NAT{})
		m, _ := b.join()
		first := receiving(t, m)
		n, _ := a.join()
		time.Sleep(time.Second)
		called := time.Now()
		send(t, n, "b", "state")
		exactly(t, "first byte", (<-first).Sub(called), 3) // offer, answer, and the way through the relay
		called = time.Now()
		send(t, n, "b", "state")
		d := (<-first).Sub(called)
		if d != rtt && d != rtt/2 {
			t.Errorf("on the link that is up: %v", d)
		}
	})
}

// TestCallEachOther: two that call each other at the same moment have one link, and lose nothing. The one with the
// higher identity is QUIC's server by an offer, and waits for the end of the handshake before it sends.
func TestCallEachOther(t *testing.T) {
	for round := range 8 {
		synctest.Test(t, func(t *testing.T) {
			w := newBubble(t, rtt)
			a, b := w.functions(round%2 == 0, [2]*natsim.NAT{})
			lower := map[bool]*function{true: a, false: b}[a.id.Peer < b.id.Peer]
			sent := make(chan *fnlib.Node, 2)
			for f, to := range map[*function]string{a: "b", b: "a"} {
				go func() {
					n, asked := f.join(calls(to))
					first := receiving(t, n)
					send(t, n, to, "state")
					rounds := 3.0
					if f == lower {
						rounds = 4 // what comes from the higher
					}
					exactly(t, "first byte", (<-first).Sub(asked), rounds)
					sent <- n
				}()
			}
			for range 2 {
				if s := (<-sent).Stats(); s.Links != 1 {
					t.Errorf("%d links", s.Links)
				}
			}
		})
	}
}

// TestLateOffer: an offer that was long under way replaces no link that has come up since. One that names the
// link does: its sender has lost it.
func TestLateOffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, rtt)
		a, b := w.functions(false, [2]*natsim.NAT{}) // b dials
		m, _ := b.join()
		l, err := m.Listen("x")
		if err != nil {
			t.Fatal(err)
		}
		n, _ := a.join()
		c, err := n.Dial(t.Context(), "b:x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Accept(); err != nil {
			t.Fatal(err)
		}
		link := c.Stream.Link()
		other, err := rendezvous.Dial(t.Context(), rendezvous.Config{InProcess: a, Key: w.key, Identity: a.id})
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		for seq, lost := range []rendezvous.Nonce{{}, {1}, rendezvous.Nonce(link.ID())} {
			time.Sleep(5 * time.Second)
			env, err := rendezvous.Seal(w.key, rendezvous.Hello{
				Job: w.key.ID(), Kind: rendezvous.KindOffer, FromName: "a", FromPeer: a.id.Peer.String(), FromEpoch: n.Epoch(),
				ToName: "b", Seq: 1000 + uint64(seq), Lost: lost, Relay: "r1", Nonce: fnlib.NonceOf(n),
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := other.Answer(t.Context(), b.id.Peer.String(), env); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * rtt)
			select {
			case <-link.Done():
				if seq < 2 {
					t.Errorf("an offer that names %x ended a link that works", lost)
				}
			default:
				if seq == 2 {
					t.Error("an offer that names the link did not replace it")
				}
			}
		}
	})
}

// TestCallUnused: a call that nobody waits for is given up after ten seconds, and is no hindrance later.
func TestCallUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, rtt)
		a, b := w.functions(true, [2]*natsim.NAT{})
		n, _ := a.join(calls("b", "c", "d", "e", "f", "b", "a"))
		if got := fnlib.CallsOf(n); got != 5 {
			t.Errorf("%d calls, want one for each of five others", got)
		}
		time.Sleep(11 * time.Second)
		if got := fnlib.CallsOf(n); got != 0 {
			t.Errorf("%d calls after eleven seconds", got)
		}
		m, _ := b.join()
		first := receiving(t, m)
		send(t, n, "b", "state")
		<-first
	})
}

// TestBothCall: a function that has just been called sends to who has called it. It waits for the link that is on its way, however long a round
// trip takes: the receipt is there five of them after the call. Two that call each other before they know have to wait little longer than for one call, and
// not for QUIC's timer, which is at 200 ms.
func TestBothCall(t *testing.T) {
	for _, c := range []struct {
		rtt      time.Duration
		quarters int // of a round trip after the call
	}{{rtt, 0}, {rtt, 1}, {rtt, 2}, {rtt, 3}, {rtt, 4}, {rtt, 5}, {rtt, 6}, {rtt, 8}, {4 * rtt, 5}, {4 * rtt, 6}} {
		t.Run(fmt.Sprintf("%d quarters of %v later", c.quarters, c.rtt), func(t *testing.T) {
			eachOrder(t, func(t *testing.T, lower bool) {
				w := newBubble(t, c.rtt)
				a, b := w.functions(lower, [2]*natsim.NAT{})
				n, _ := a.join()
				m, _ := b.join()
				receiving(t, n)
				receiving(t, m)
				time.Sleep(time.Minute)
				began := time.Now()
				second := make(chan time.Duration)
				go func() {
					time.Sleep(time.Duration(c.quarters) * c.rtt / 4)
					send(t, m, "a", "state")
					second <- time.Since(began)
				}()
				send(t, n, "b", "state")
				first, other := time.Since(began), <-second
				if c.quarters > 4 { // it knows
					if first != 4*c.rtt || other != 5*c.rtt {
						t.Errorf("receipts after %v and %v, want %v and %v", first, other, 4*c.rtt, 5*c.rtt)
					}
				} else if most := 13 * c.rtt / 2; first > most || other > most {
					t.Errorf("receipts after %v and %v, want at most %v", first, other, most)
				}
			})
		})
	}
}
