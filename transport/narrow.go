package transport

import (
	"sync/atomic"
	"time"

	"github.com/fnwire/fnwire/transport/pieces"
	"github.com/fnwire/fnwire/transport/punch"
)

const (
	leastPatience = 200 * time.Millisecond // of hearing nothing, after which long packets go in pieces
	cutAfter      = 2                      // questions in a row without an answer, though the peer was heard, after which they do
	narrowAfter   = 3                      // the same, after which QUIC is to begin anew;
	narrowAgain   = 10                     // and again after so many
	againAsked    = 5                      // times that a question is sent in doubt
	settleFor     = 50 * time.Millisecond
	maxAckDelay   = 25 * time.Millisecond // of QUIC (RFC 9000, 18.2)
)

// width is what is known of how long a packet of one class may be. quic-go never lowers a size that it has found, and QUIC's
// smallest may be too long, so a way that becomes too narrow would end the link. The hub takes its place: what
// is long goes in pieces (package pieces) when nothing comes back, or when questions of that length get no answer. That
// holds for the generation on which QUIC sends; on another it begins with small packets, and so it is moved to one.
type width struct {
	gen    atomic.Uint32 // of the last long packet
	counts atomic.Int64  // from when on long packets of that generation count
	size   atomic.Uint32 // generation<<16 | length of the longest packets that QUIC has sent in numbers since measure has looked; 0 = none
	single atomic.Uint32 // the same of the last one that went by itself
	cut    atomic.Uint32 // generation<<16 | length of what was too long: what is long goes in pieces there; 0 = nowhere

	patience atomic.Int64  // silence after which it does
	question atomic.Uint64 // the last one: its number << 32 | what it is about, as size
	answered atomic.Uint32 // number of the last one that was answered
	pieced   atomic.Bool   // the peer's packets came in pieces since measure has looked

	// For Endpoint.mind:
	asked    int64 // when measure asked, in hub.now units; 0 = not at the last look
	missed   int   // questions in a row that got no answer though the peer was heard
	piecedIn int   // looks in a row in which the peer's packets came in pieces
}

func widthOf(gen uint16, size int) uint32 { return uint32(gen)<<16 | uint32(size) }

// note takes down the length of long packets that QUIC sends. One that differs from the one before may be QUIC's own question;
// when QUIC changes its path, what it has made for the one before still goes out.
func (w *width) note(gen uint16, size int, many bool, now int64) {
	if w.gen.Load() != uint32(gen) {
		w.gen.Store(uint32(gen))
		w.counts.Store(now + int64(settleFor))
	}
	if v := widthOf(gen, size); w.known(gen) < size && now >= w.counts.Load() && (many || w.single.Swap(v) == v) {
		w.size.Store(v)
	}
}

// known is the length of the longest packets of a generation that were sent lately.
func (w *width) known(gen uint16) int {
	if v := w.size.Load(); v>>16 == uint32(gen) {
		return int(v & 0xffff)
	}
	return 0
}

// cuts reports whether long packets of a generation go in pieces.
func (w *width) cuts(gen uint16) bool {
	v := w.cut.Load()
	return v != 0 && v>>16 == uint32(gen)
}

// answer takes the answer to a question. It has passed, so that what is not longer goes as it is.
func (w *width) answer(number uint16) {
	q := w.question.Load()
	if q>>32 != uint64(number) {
		return
	}
	w.answered.Store(uint32(number))
	if cut, about := w.cut.Load(), uint32(q); cut>>16 == about>>16 && cut <= about {
		w.cut.CompareAndSwap(cut, 0)
	}
}

// tooLong reports whether packets of a length go in pieces, given for how long the peer has been silent.
func (p *remote) tooLong(class Class, gen uint16, size int, silent time.Duration) bool {
	w := &p.talks[class].width
	if w.cuts(gen) {
		return true
	}
	patience := time.Duration(w.patience.Load())
	if patience == 0 || silent < patience || !p.joins.Load() {
		return false
	}
	w.cut.Store(widthOf(gen, size))
	p.askWidth(class, widthOf(gen, size), true)
	return true
}

// cut sends packets in pieces. Into a silence a packet goes whole as well, since its length may not be to blame; and its pieces do not
// go as a batch, since batches may be (see split).
func (h *hub) cut(p *remote, class Class, gen uint16, b []byte, seg int, now int64, silent time.Duration) (err error) {
	buf := getBuffer(h.big)
	defer buf.release()
	packet, single := b, len(b) <= seg
	for len(b) > 0 && err == nil {
		n := min(seg, len(b))
		if n <= pieces.Whole {
			return h.carry(p, class, gen, b, n, now, silent) // the last one, which is shorter
		}
		out, size := buf.b[:0], pieces.Len(n)
		for ; len(b) >= n && len(out)+2*size <= len(buf.b); b = b[n:] {
			out = p.pieces.Cut(out, b[:n])
			h.stats.cut.Add(1)
		}
		if single {
			if silent >= leastPatience {
				_ = h.carry(p, class, gen, packet, n, now, silent) // at worst lost
			}
			err = h.carry(p, class, gen, out[:size], size, now, silent)
			out = out[size:]
		}
		if err == nil {
			err = h.carry(p, class, gen, out, size, now, silent)
		}
	}
	return err
}

// piece takes what package pieces has made at an admitted peer. It came directly, or by a relay (leg) with the generation of a path.
func (h *hub) piece(t *tables, p *remote, leg Relay, gen uint16, b []byte) {
	if b[0] == pieces.Piece {
		h.join(t, p, leg, gen, b)
		return
	}
	m, err := p.pieces.Open(b)
	class := Class(m.Subject)
	if err != nil || class >= classes {
		h.stats.strangers.Add(1)
		return
	}
	p.joins.Store(true)
	if m.Kind == pieces.Answer {
		p.talks[class].width.answer(m.Number)
		return
	}
	var answer [pieces.HeaderBytes]byte
	_ = h.carry(p, class, gen, p.pieces.Reply(answer[:0], m), len(answer), h.now(), 0) // at worst lost
}

// join takes a piece, and the packet that it completes.
func (h *hub) join(t *tables, p *remote, leg Relay, gen uint16, b []byte) {
	buf := getBuffer(h.small)
	defer buf.release()
	whole, err := p.pieces.Join(buf.b[:0], b)
	switch {
	case err != nil:
		h.stats.strangers.Add(1)
	case whole == nil:
		p.joins.Store(true)
	case whole[0] < firstQUIC:
		h.stats.strangers.Add(1)
	default:
		if class, ok := classOf(whole); ok {
			p.talks[class].width.pieced.Store(true)
		}
		c := cutter{hub: h, t: t, leg: leg, path: p, buf: buf, data: whole}
		if leg == nil {
			c.direct(whole)
		} else {
			c.fromRelay(p, gen, whole, whole)
		}
		c.flush()
	}
}

// measure asks the peer, once a second while long packets are sent, whether one as long arrives. A question is given as long for its
// answer as silence is. It tells whether QUIC is to begin anew: with small packets, on another path. rto is how long QUIC waits for an answer.
func (p *remote) measure(class Class, rto time.Duration) (narrow bool) {
	t := &p.talks[class]
	w := &t.width
	patience := max(leastPatience, 2*rto)
	w.patience.Store(int64(patience))
	q := w.question.Load()
	if w.asked != 0 && q>>32 != uint64(w.answered.Load()) && time.Duration(p.hub.now()-w.asked) < patience {
		return false
	}
	v := w.size.Swap(0)
	about := uint32(q)
	if v == 0 && w.missed > 0 && w.missed < narrowAfter {
		v = about
	}
	switch {
	case v>>16 != about>>16 && v != 0, q>>32 == uint64(w.answered.Load()):
		w.missed = 0
	case w.asked != 0 && p.joins.Load() && t.heard.Load() > w.asked:
		if w.missed++; w.missed >= cutAfter && !w.cuts(uint16(about>>16)) {
			w.cut.Store(about)
		}
		narrow = w.missed%narrowAgain == narrowAfter
	}
	if w.asked = 0; v != 0 {
		w.asked = p.hub.now()
		p.askWidth(class, v, w.missed > 0)
	}
	return narrow
}

// askWidth asks whether a packet arrives that is as long as v says, as in width.size.
func (p *remote) askWidth(class Class, v uint32, doubt bool) {
	w := &p.talks[class].width
	number := max(uint16(w.question.Load()>>32)+1, 1)
	w.question.Store(uint64(number)<<32 | uint64(v))
	size, times := int(v&0xffff), 1
	switch {
	case !p.joins.Load():
		size = pieces.HeaderBytes // does it answer at all?
	case doubt:
		times = againAsked
	}
	b := p.pieces.Ask(nil, byte(class), number, size)
	for range times {
		_ = p.hub.carry(p, class, uint16(v>>16), b, len(b), p.hub.now(), 0) // at worst lost
	}
}

// isPieced reports whether the peer's packets have come in pieces for some seconds: it cannot move QUIC to another path if this side has dialled.
func (w *width) isPieced() bool {
	if w.piecedIn++; !w.pieced.Swap(false) {
		w.piecedIn = 0
	}
	return w.piecedIn >= narrowAfter
}

// widen has QUIC begin anew on another path, because the one that it uses is too narrow for what it sends.
func (l *Link) widen() {
	st, _ := l.peer.watch()
	if l.class != RelayOnly && st.Path.IsValid() {
		l.peer.post(punch.Disturbed{Reason: "direct path has become too narrow"})
		return
	}
	l.renew()
}
