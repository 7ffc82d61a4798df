package relay_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/token"
	"github.com/fnwire/fnwire/relay"
)

const oneWay = 20 * time.Millisecond

// fake answers a client in virtual time as a relay would; each of its faults can be switched.
type fake struct {
	t      *testing.T
	client *relay.Client
	stop   func()

	mu       sync.Mutex // guards what follows
	sent     []event
	deaf     bool // answers nothing
	bound    bool // knows the session
	instance uint64
	lifetime uint32
	refuse   relay.Reason
	loseNext int           // frames
	far      time.Duration // more than usual, until it answers
	freeze   time.Duration // at the next ping, for once
	nonce    relay.Nonce   // of the last PROVE
}

type event struct {
	at   time.Duration
	kind byte
}

func newFake(t *testing.T, tok []byte) *fake {
	t.Helper()
	return newFarFake(t, tok, 0)
}

// newFarFake is farther away than usual from the first bind on.
func newFarFake(t *testing.T, tok []byte, far time.Duration) *fake {
	t.Helper()
	id, err := ident.FromEd25519(testKey())
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{t: t, instance: 1, lifetime: 3600, far: far}
	begin := time.Now()
	f.client = relay.NewClient(relay.Config{
		ID: "relay-1", Addr: netip.MustParseAddrPort("192.0.2.1:3478"), Token: tok, Identity: id,
		Send: func(_ netip.AddrPort, b []byte, _ int) error {
			f.mu.Lock()
			f.sent = append(f.sent, event{time.Since(begin), b[0]})
			b = bytes.Clone(b)
			frozen := time.Duration(0)
			if b[0] == relay.TypePing {
				frozen, f.freeze = f.freeze, 0
			}
			time.AfterFunc(max(2*oneWay+f.far, frozen), func() { f.answer(b) })
			f.mu.Unlock()
			time.Sleep(frozen)
			return nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.client.Run(ctx) }()
	f.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second) // of virtual time, for answers under way
	}
	return f
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) answer(b []byte) {
	f.mu.Lock()
	var out []byte
	switch {
	case f.deaf:
	case f.loseNext > 0:
		f.loseNext--
	case b[0] == relay.TypeBind:
		m, _ := relay.ParseBind(b)
		if f.refuse != 0 {
			out = relay.AppendRefused(nil, relay.Refused{Reason: f.refuse, Nonce: m.Nonce})
			break
		}
		out = relay.AppendChallenge(nil, relay.Challenge{Nonce: m.Nonce})
	case b[0] == relay.TypeProve:
		m, _ := relay.ParseProve(b)
		f.bound, f.nonce = true, m.Nonce
		out = relay.AppendBound(nil, relay.Bound{Nonce: m.Nonce, Lifetime: f.lifetime, Instance: f.instance})
	case b[0] == relay.TypePing:
		m, _ := relay.ParsePing(b)
		out = relay.AppendUnbound(nil, m.Nonce)
		if f.bound {
			out = relay.AppendPong(nil, relay.Pong{Nonce: m.Nonce, Instance: f.instance})
		}
	}
	f.mu.Unlock()
	if out != nil {
		f.client.HandlePacket(out)
	}
}

// since returns what was sent of a kind since the last call.
func (f *fake) since(kind byte) (at []time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rest := f.sent[:0]
	for _, e := range f.sent {
		if e.kind == kind {
			at = append(at, e.at)
		} else {
			rest = append(rest, e)
		}
	}
	f.sent = rest
	return at
}

func goodToken() []byte { return make([]byte, token.Size) }

func wantTimes(t *testing.T, got []time.Duration, want ...time.Duration) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("sent at %v, want %v", got, want)
	}
}

// sendFor keeps sending without an answer, as QUIC does into a hole.
func (f *fake) sendFor(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		_ = f.client.Send(ident.Short{1}, 0, []byte("x"), 0)
	}
}
