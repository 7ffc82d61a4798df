package transport

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/transport/pieces"
)

// send takes QUIC packets of seg bytes each for a virtual address.
func (h *hub) send(class Class, b []byte, seg int, to *net.UDPAddr) error {
	s, gen, ok := parseVirtual(to)
	if !ok {
		return nil
	}
	t := h.tables.Load()
	p := t.peers[s]
	if p == nil {
		if a := t.attempts[s]; a != nil {
			return a.send(gen, b, seg)
		}
		return nil // forgotten peer; QUIC will notice the silence
	}
	return h.sendPeer(p, class, gen, b, seg)
}

func (h *hub) sendPeer(p *remote, class Class, gen uint16, b []byte, seg int) error {
	if seg > maxPacketSize {
		return errTooBig
	}
	if f := p.flights[class].Load(); f != nil && f.add(b, seg) {
		return nil
	}
	now := h.now()
	silent := p.ask(now, class)
	if silent > recallAfter || p.thawing(now) {
		p.talks[class].keep(b[:min(seg, len(b))], gen, now)
	}
	return h.route(p, class, gen, b, seg, now, silent)
}

// route sends packets as they are, or in pieces where they are too long.
func (h *hub) route(p *remote, class Class, gen uint16, b []byte, seg int, now int64, silent time.Duration) error {
	if seg > pieces.Whole {
		p.talks[class].width.note(gen, seg, len(b) > seg, now)
		if p.tooLong(class, gen, seg, silent) {
			return h.cut(p, class, gen, b, seg, now, silent)
		}
	}
	return h.carry(p, class, gen, b, seg, now, silent)
}

// carry sends packets by the ways that the peer's state wants. A peer that is silent may be out of reach of its home relay: then a
// second one is tried as well.
func (h *hub) carry(p *remote, class Class, gen uint16, b []byte, seg int, now int64, silent time.Duration) error {
	leg := p.leg()
	r := p.route.Load()
	usable := leg != nil && leg.Usable()
	works := usable || leg != nil && !r.path.IsValid() // with no other way, a silent relay is tried on
	direct, relay := r.choose(class, gen, works)
	if relay && leg != nil {
		h.stats.relayOut.Add(uint64(len(b)))
		if !usable && !direct && p.later(leg, uint32(gen), b, seg) {
			return nil
		}
		p.opening.keep(uint32(gen), b, seg)
		h.relay(leg, p, gen, b, seg)
		if silent > asideAfter {
			if other := h.otherLeg(leg); other != nil {
				h.relay(other, p, gen, b, seg)
			}
		}
	}
	if direct {
		p.markSent(now)
		if w := &p.talks[class].width; !w.cuts(gen) {
			if n := int32(w.known(gen)); n > p.size.Load() {
				p.size.Store(n)
			}
		}
		h.stats.directOut.Add(uint64(len(b)))
		if r.by != nil {
			return h.writeBy(r.by.out, b, seg, r.path)
		}
		return h.write(b, seg, r.path)
	}
	return nil
}

func (h *hub) relay(leg Relay, p *remote, gen uint16, b []byte, seg int) {
	if err := leg.Send(p.short, uint32(gen), b, seg); err != nil {
		h.log.Debug("transport: relay did not take packets", "relay", leg.ID(), "error", err)
	}
}

// write sends on the socket of the right family. Only "too big" is told to the caller: a transient
// failure is a lost packet, and the state machine sees the silence.
func (h *hub) write(b []byte, seg int, to netip.AddrPort) error {
	s := h.socketFor(to.Addr())
	if s == nil {
		return nil
	}
	return h.writeBy(s, b, seg, to)
}

func (h *hub) writeBy(s udpx.Socket, b []byte, seg int, to netip.AddrPort) error {
	err := s.Write(b, seg, 0, to)
	if udpx.IsTooBig(err) {
		return errTooBig
	}
	if err != nil {
		h.sendFailed(err)
	}
	return nil
}

func (h *hub) sendFailed(err error) {
	if !errors.Is(err, net.ErrClosed) && !udpx.IsTransient(err) {
		h.log.Debug("transport: send failed", "error", err)
	}
}

func (h *hub) socketFor(a netip.Addr) udpx.Socket {
	if a.Unmap().Is4() {
		return h.v4
	}
	return h.v6
}
