package transport

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/quic-go/quic-go"

	"github.com/fnwire/fnwire/transport/punch"
)

const (
	mindEvery   = time.Second
	frozenAfter = 3 * time.Second // how late a tick may be before the process counts as having been frozen
	lookPause   = 100 * time.Millisecond
	repeatAfter = time.Second     // of sending and hearing nothing, before the last packet is sent again
	renewPause  = 2 * time.Second // between two attempts at a path for small packets; doubles, to a minute
	silentAfter = 3 * time.Second // of sending and hearing nothing, before somebody else is asked about the peer
	askPause    = 2 * time.Second
)

var errGone = errors.New("the peer is gone")

// mind watches over what no packet tells: that the process was frozen, that the machine has other addresses, that a peer is
// silent. It costs one cheap look a second, and one more at most in a tenth of a second when packets take another way.
func (e *Endpoint) mind() {
	tick := time.NewTicker(mindEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-tick.C:
			now := time.Now()
			// Both clocks: a suspended machine may not count the pause in the monotonic one.
			if now.Sub(last)-mindEvery > frozenAfter || now.Round(0).Sub(last.Round(0))-mindEvery > frozenAfter {
				e.log.Info("transport: the process was frozen", "for", now.Sub(last))
				e.thawed(now)
			}
			last = now
			e.checkAddresses()
			e.careForLinks(now)
			e.forgetIdle()
		case <-e.looks:
			if !e.checkAddresses() && e.cfg.OnDoubt != nil {
				e.cfg.OnDoubt()
			}
			select {
			case <-time.After(lookPause):
			case <-e.ctx.Done():
				return
			}
		}
	}
}

// look has mind look soon, because packets take another way.
func (e *Endpoint) look() {
	select {
	case e.looks <- struct{}{}:
	default:
	}
}

// checkAddresses notices that the machine has other addresses than before.
func (e *Endpoint) checkAddresses() (changed bool) {
	host := e.hostCandidates()
	e.mu.Lock()
	if changed = !slices.Equal(host, e.host); changed {
		e.host = host
		e.gather()
	}
	e.mu.Unlock()
	if changed {
		e.log.Info("transport: the machine's addresses have changed")
		e.hub.pace.forget()
		e.disturbed("local addresses changed")
	}
	return changed
}

// thawed tells every peer's state machine that the process was frozen, and has the owner look after the relays and the mapped address. Links on which no
// stream is open are left alone for some seconds.
func (e *Endpoint) thawed(now time.Time) {
	e.unsettle(func(r *remote) punch.Event { return punch.Thawed{Talking: r.talking()} })
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, s := range e.links {
		switch l := s.link; {
		case l == nil:
		case l.streams.Load() > 0:
			l.peer.repeat(k.class, againFirst)
		default:
			if t := now.Add(punch.ThawLeast + rand.N(punch.ThawMost-punch.ThawLeast)); l.ping.Before(t) {
				l.ping = t
			}
		}
	}
}

// disturbed tells every peer's state machine that the network is another, and has the owner look after the relays and the mapped address.
func (e *Endpoint) disturbed(reason string) {
	e.unsettle(func(*remote) punch.Event { return punch.Disturbed{Reason: reason} })
	e.hub.again()
}

// unsettle has every peer's state machine take an event, and the owner look after the relays and the mapped address.
func (e *Endpoint) unsettle(what func(*remote) punch.Event) {
	e.mu.Lock()
	e.tellPeers()
	for _, r := range e.peers {
		r.post(what(r))
	}
	e.mu.Unlock()
	if e.cfg.OnDisturbed != nil {
		e.cfg.OnDisturbed()
	}
}

// careForLinks keeps idle links alive, looks whether packets are too long for the ways that they take, and after peers from which nothing is heard though
// something is sent: Config.Gone is asked about them. Two answers that a peer is gone, some time apart, end its links.
func (e *Endpoint) careForLinks(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, s := range e.links {
		r := e.peers[k.peer]
		if r == nil || !s.up() {
			continue
		}
		st := s.link.conn.ConnectionStats()
		e.split.look(e, s.link, st)
		s.link.keepAlive(now, st)
		t := &r.talks[k.class]
		if r.measure(k.class, st.SmoothedRTT+4*st.MeanDeviation+maxAckDelay) {
			s.link.widen()
		}
		if t.width.isPieced() {
			s.link.renew()
		}
		since, silent := t.silent(r.hub.now())
		if silent >= repeatAfter && !t.repeats() {
			r.repeat(k.class, againFirst)
		}
		if silent >= silentAfter && e.cfg.Gone != nil && !r.asking {
			r.asking = true
			e.wg.Go(func() { e.askAbout(r, t, since) })
		}
	}
}

// keepAlive has the peer answer when nothing was heard for long. It is an empty datagram (RFC 9221), since QUIC's own PING cannot be held back: after a
// freeze it would go out on every link, however short the thaw. So that one goes only where the link would soon end.
func (l *Link) keepAlive(now time.Time, st quic.ConnectionStats) {
	if st.PacketsReceived != l.received || l.ping.IsZero() {
		l.received, l.ping = st.PacketsReceived, now.Add(keepAlive)
		return
	}
	if now.Before(l.ping) {
		return
	}
	l.ping = now.Add(keepAlive)
	if err := l.conn.SendDatagram(nil); err != nil && l.conn.Context().Err() == nil {
		l.e.log.Debug("transport: keep-alive not sent", "peer", l.peer.id, "error", err)
	}
}

func (e *Endpoint) askAbout(r *remote, t *talk, owed int64) {
	defer func() {
		e.mu.Lock()
		r.asking = false
		e.mu.Unlock()
	}()
	since := r.hub.epoch.Add(time.Duration(owed - 1))
	for range 2 {
		ctx, cancel := context.WithTimeout(e.ctx, askPause)
		gone := e.cfg.Gone(ctx, r.id, since)
		cancel()
		if !gone {
			return
		}
		select {
		case <-time.After(askPause):
		case <-e.ctx.Done():
			return
		}
		if t.owed.Load() != owed {
			return // it has spoken
		}
	}
	e.log.Info("transport: the peer is gone", "peer", r.id)
	for _, l := range e.linksOf(r.id) {
		_ = l.conn.CloseWithError(codeGone, errGone.Error())
	}
}

func (e *Endpoint) linksOf(id peer.ID) []*Link {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []*Link
	for k, s := range e.links {
		if k.peer == id && s.link != nil {
			out = append(out, s.link)
		}
	}
	return out
}
