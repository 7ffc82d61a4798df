package server_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/token"
	"github.com/fnwire/fnwire/relay"
	"github.com/fnwire/fnwire/relay/server"
)

func TestForwards(t *testing.T) {
	w := newWorld(t, server.Limits{})
	ida, idb := newIdentity(t), newIdentity(t)
	a, b := w.node(ida, w.mint(ida, nil)), w.node(idb, w.mint(idb, nil))
	a.waitReady(t)
	b.waitReady(t)
	w.eventually(func() bool { return w.srv.Stats().Bound == 2 }, "both bound")
	const seg = 1200
	data := make([]byte, 100*seg-17)
	for i := range data {
		data[i] = byte(i / seg)
	}
	if err := a.Send(b.short, 0xabcdef, data, seg); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	for got.Len() < len(data) {
		select {
		case p := <-b.got:
			if p.from != a.short || p.tag != 0xabcdef {
				t.Fatalf("from %v tag %x", p.from, p.tag)
			}
			got.WriteString(p.data)
		case <-time.After(patient):
			t.Fatalf("%d of %d bytes", got.Len(), len(data))
		}
	}
	if !bytes.Equal(got.Bytes(), data) {
		t.Fatal("bytes differ")
	}
	if st, err := a.State(); st != relay.StateBound || err != nil {
		t.Errorf("%v, %v", st, err)
	}
	if a.RTT() <= 0 || a.Observed() != a.sock.LocalAddr() {
		t.Errorf("RTT %v, observed %v", a.RTT(), a.Observed())
	}
	// Counted after sending, so maybe after the receipt.
	w.eventually(func() bool {
		st := w.srv.Stats()
		return st.Sessions == 2 && st.PacketsOut == 100 && st.BytesOut == uint64(len(data)+100*relay.HeaderBytes)
	}, "counts")
}

// One batch with several destinations, a control frame in the middle and a short last packet comes
// apart correctly.
func TestMixedBatch(t *testing.T) {
	w := newWorld(t, server.Limits{})
	a, b, c := w.raw(), w.raw(), w.raw()
	a.bind()
	b.bind()
	c.bind()
	var batch []byte
	for i, to := range []ident.Short{b.short, b.short, c.short, {}, b.short, c.short} {
		var h [relay.HeaderBytes]byte
		relay.PutHeader(h[:], 7, to)
		if to == (ident.Short{}) {
			batch = append(batch, relay.AppendPing(nil, relay.Ping{Short: a.short, Nonce: relay.Nonce{1}})...)
			continue
		}
		batch = append(append(batch, h[:]...), fmt.Sprintf("packet %d", i)...)
	}
	batch = batch[:len(batch)-1]
	if err := a.Write(batch, relay.PingBytes, 0, w.srv.Addr()); err != nil {
		t.Fatal(err)
	}
	// Runs that GRO has joined come apart here.
	read := func(r *raw, n int) (got []string) {
		for len(got) < n {
			for p := r.receiveAll(); len(p) > 0; p = p[min(relay.PingBytes, len(p)):] {
				_, _, d, ok := relay.ParseData(p[:min(relay.PingBytes, len(p))])
				if !ok {
					t.Fatalf("got %x", p)
				}
				got = append(got, string(d))
			}
		}
		return got
	}
	if got := read(b, 3); strings.Join(got, ",") != "packet 0,packet 1,packet 4" {
		t.Errorf("b got %q", got)
	}
	if got := read(c, 2); strings.Join(got, ",") != "packet 2,packet " {
		t.Errorf("c got %q", got)
	}
	if _, ok := relay.ParsePong(a.receive()); !ok {
		t.Error("no PONG")
	}
}

// ANCHORS, relay: no more than three times the bytes to an address that is not proven.
func TestAmplificationBeforeProof(t *testing.T) {
	w := newWorld(t, server.Limits{})
	peer, r := w.raw(), w.raw()
	peer.bind()
	c := r.challenge()
	const budget = 3*relay.BindBytes - relay.ChallengeBytes
	size := relay.HeaderBytes + 88
	sent := budget/size + 3
	w.dropped("amplification", 3, func() {
		for range sent {
			peer.data(r.short, strings.Repeat("x", 88))
		}
	})
	got := 0
	for range budget / size {
		got += len(r.receive())
	}
	if got+relay.ChallengeBytes > 3*relay.BindBytes {
		t.Errorf("%d bytes out for %d in", got+relay.ChallengeBytes, relay.BindBytes)
	}
	r.prove(c)
	for range 20 {
		peer.data(r.short, strings.Repeat("y", 88))
		r.wantData(peer.short, strings.Repeat("y", 88))
	}
}

// ANCHORS, relay: expiry ends live sessions.
func TestExpiryEndsSession(t *testing.T) {
	w := newWorld(t, server.Limits{})
	a, b := w.raw(), w.raw()
	b.bind()
	a.token = w.mint(a.id, func(t *token.Token, _ *string, _ *ed25519.PrivateKey) {
		t.Expires = time.Now().Add(2 * time.Second).Truncate(time.Second)
	})
	if m := a.bind(); m.Lifetime < 1 || m.Lifetime > 2 {
		t.Errorf("lifetime %d s", m.Lifetime)
	}
	w.eventually(func() bool { return !a.bound() }, "expiry")
	w.dropped("stranger", 1, func() { a.data(b.short, "late") })
	w.dropped("gone", 1, func() { b.data(a.short, "late") })
	w.eventually(func() bool { return w.srv.Stats().Sessions == 1 }, "sweep")

	// A BIND with a newer token prolongs in place.
	b.token = w.mint(b.id, func(t *token.Token, _ *string, _ *ed25519.PrivateKey) { t.Expires = time.Now().Add(2 * time.Hour) })
	if got := b.receive(); got[0] != relay.TypeGone {
		t.Errorf("got %x, want GONE", got)
	}
	if m := b.bind(); m.Lifetime < 7000 {
		t.Errorf("lifetime %d s", m.Lifetime)
	}
}

// ANCHORS, relay: revocation ends live sessions.
func TestRevokeEndsSession(t *testing.T) {
	w := newWorld(t, server.Limits{})
	a, b := w.raw(), w.raw()
	a.bind()
	b.bind()
	w.srv.Revoke(a.short)
	if a.bound() {
		t.Error("still bound")
	}
	w.dropped("stranger", 1, func() { a.data(b.short, "late") })
	frame, _ := a.bindFrame()
	a.send(frame)
	if m, ok := relay.ParseRefused(a.receive()); !ok || m.Reason != relay.ReasonRevoked {
		t.Errorf("got %v", m)
	}
}

func TestGone(t *testing.T) {
	w := newWorld(t, server.Limits{})
	id := newIdentity(t)
	n := w.node(id, w.mint(id, nil))
	n.waitReady(t)
	w.eventually(func() bool { s, _ := n.State(); return s == relay.StateBound }, "bound")
	dest := ident.Short{1, 2, 3}
	// It is told a few times, not for each packet.
	w.dropped("gone", 500, func() {
		for range 50 {
			if err := n.Send(dest, 0, make([]byte, 1000), 100); err != nil {
				t.Fatal(err)
			}
		}
	})
	select {
	case got := <-n.gone:
		if got != dest {
			t.Errorf("got %v", got)
		}
	case <-time.After(patient):
		t.Fatal("not told")
	}
	if told := len(n.gone) + 1; told > 40 {
		t.Errorf("told %d times", told)
	}
}

// ANCHORS, relay: jobs do not reach one another.
func TestCrossJobRefused(t *testing.T) {
	w := newWorld(t, server.Limits{})
	a := w.raw()
	a.bind()
	other := *w
	other.job = job.NewKey()
	b := other.raw()
	b.bind()
	w.dropped("cross_job", 1, func() { a.data(b.short, "hello") })
	if got := a.receive(); got[0] != relay.TypeGone || len(got) != relay.GoneBytes {
		t.Errorf("got %x, want GONE", got)
	}
	// Had the packet arrived, it would come before the PONG.
	if !b.bound() {
		t.Error("not bound")
	}
}

// ANCHORS, relay: caps on packets and bytes.
func TestRateLimits(t *testing.T) {
	for name, l := range map[string]server.Limits{
		"packets": {PacketsPerSecond: 40}, "bytes": {BytesPerSecond: 4000}, "total bytes": {TotalBytesPerSecond: 4000},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, l)
			a, b := w.raw(), w.raw()
			a.bind()
			b.bind()
			w.dropped("limit", 100, func() {
				for range 200 {
					a.data(b.short, strings.Repeat("x", 88))
				}
			})
			if out := w.srv.Stats().PacketsOut; out < 10 || out > 100 {
				t.Errorf("%d packets passed", out)
			}
		})
	}
}

// ANCHORS, relay: many fresh keys from one network cannot starve an admitted job.
func TestFreshKeysCannotStarveAJob(t *testing.T) {
	w := newWorld(t, server.Limits{Sessions: 64, PerJob: 16, PerPrefix: 32})
	a, b := w.raw(), w.raw()
	a.bind()
	b.bind()
	crowd := *w
	crowd.job = job.NewKey()
	flood := crowd.raw()
	refused := 0
	for range 100 {
		// One socket stands for many: only the first proof would move an address.
		fresh := *flood
		fresh.id = newIdentity(t)
		fresh.token = crowd.mint(fresh.id, nil)
		frame, _ := fresh.bindFrame()
		fresh.send(frame)
		if _, ok := relay.ParseRefused(fresh.receive()); ok {
			refused++
		}
	}
	if refused < 84 {
		t.Errorf("%d of 100 refused", refused)
	}
	a.data(b.short, "hello")
	b.wantData(a.short, "hello")
	moved := w.rawAs(a.id)
	moved.stamp = a.stamp.Add(time.Second)
	moved.bind()
}

// ANCHORS, relay: silent or smaller reply, for every frame including STUN.
func TestRepliesAreNoLongerThanRequests(t *testing.T) {
	w := newWorld(t, server.Limits{})
	r := w.raw()
	exchange := func(b []byte) []byte {
		t.Helper()
		r.send(b)
		got := r.receive()
		if len(got) > len(b) {
			t.Errorf("%d bytes for %d: %x", len(got), len(b), got)
		}
		return got
	}
	frame, _ := r.bindFrame()
	c, _ := relay.ParseChallenge(exchange(frame))
	exchange(r.proveFrame(c))
	exchange(relay.AppendPing(nil, relay.Ping{Short: r.short}))
	exchange(relay.AppendPing(nil, relay.Ping{}))
	one := make([]byte, relay.HeaderBytes+1)
	relay.PutHeader(one, 0, ident.Short{9})
	exchange(one)
	exchange(stunRequest(t, 12, false))
	exchange(stunRequest(t, 12, true))
	w.srv.Revoke(r.short)
	frame, _ = r.bindFrame()
	exchange(frame)
}

// A relay that restarts is noticed while traffic flows, and bound again, within about a second.
func TestRelayRestart(t *testing.T) {
	w := newWorld(t, server.Limits{})
	ida, idb := newIdentity(t), newIdentity(t)
	a, b := w.node(ida, w.mint(ida, nil)), w.node(idb, w.mint(idb, nil))
	a.waitReady(t)
	b.waitReady(t)
	w.eventually(func() bool { return w.srv.Stats().Bound == 2 }, "both bound")
	w.stop()
	w.startRelay()
	begin := time.Now()
	// Both send, as QUIC does when it waits for an answer.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case p := <-b.got:
			if p.data != "hello" {
				t.Fatalf("got %q", p.data)
			}
			if d := time.Since(begin); d > 2*time.Second {
				t.Errorf("took %v", d)
			} else {
				t.Logf("took %v", d)
			}
			return
		case <-tick.C:
			_ = a.Send(b.short, 1, []byte("hello"), 0)
			_ = b.Send(a.short, 1, []byte("hi"), 0)
			if time.Since(begin) > patient {
				t.Fatal("not bound again")
			}
		}
	}
}

func TestHandler(t *testing.T) {
	w := newWorld(t, server.Limits{})
	r := w.raw()
	r.bind()
	r.data(r.short, "to myself")
	r.wantData(r.short, "to myself")
	w.eventually(func() bool { return w.srv.Stats().PacketsOut == 1 }, "the count") // comes after sending
	h := w.srv.Handler()
	get := func(path string) (int, string) {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
		return rec.Code, rec.Body.String()
	}
	for _, p := range []string{"/healthz", "/readyz"} {
		if code, _ := get(p); code != http.StatusOK {
			t.Errorf("%s: %d", p, code)
		}
	}
	_, body := get("/metrics")
	for _, line := range []string{"fnwire_relay_sessions 1", "fnwire_relay_packets_out_total 1", `fnwire_relay_dropped_total{reason="gone"} 0`} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no %q in\n%s", line, body)
		}
	}
}

func TestNewRefusesBadConfig(t *testing.T) {
	key := func() ed25519.PublicKey { return nil }
	for _, cfg := range []server.Config{
		{}, {ID: "a"}, {ID: "a b", TokenKey: key}, {ID: "a", TokenKey: key, Sockets: -1},
		{ID: "a", TokenKey: key, Limits: server.Limits{Sessions: -1}}, {ID: "a", TokenKey: key, Limits: server.Limits{BytesPerSecond: -1}},
	} {
		if _, err := server.New(cfg); err == nil {
			t.Errorf("took %+v", cfg)
		}
	}
}

func TestPortTaken(t *testing.T) {
	w := newWorld(t, server.Limits{})
	cfg := w.cfg
	cfg.Listen, cfg.Listen2 = netip.MustParseAddrPort("127.0.0.1:0"), w.srv.STUNAddrs()[1]
	s, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("ran")
	}
}
