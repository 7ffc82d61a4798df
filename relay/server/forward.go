package server

import (
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/relay"
)

// forward serves one socket until that is closed. It allocates nothing for a packet. A socket with nothing but
// binds of strangers on it is patient: until that is closed, it waits while there are more than can be checked.
func (s *Server) forward(c udpx.Socket, patient <-chan struct{}) error {
	f := forwarder{Server: s, conn: c, batch: udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}, patient: patient}
	for failures := 0; ; {
		if err := c.Read(&f.batch); err != nil {
			// A full kernel passes; what lasts ends the relay.
			if failures++; failures > 100 || closed(err) == nil {
				return closed(err)
			}
			continue
		}
		failures = 0
		f.handle()
	}
}

type forwarder struct {
	*Server
	conn    udpx.Socket     // to send to UDP addresses
	batch   udpx.Batch      // of a UDP socket; ECN is zero for connections over TLS
	from    origin          // of the frames at hand
	out     []byte          // for replies
	patient <-chan struct{} // see forward; nil: it waits for nothing
	binds   int             // of a connection over TLS that came first
	now     time.Duration
	src     *session // of the batch; looked up for the first DATA
	asked   bool
}

// handle takes one batch of a socket, which has one source.
func (f *forwarder) handle() {
	f.now, f.src, f.asked = f.Server.now(), nil, false
	f.from.addr = f.batch.From
	f.frames(f.batch.Buf[:f.batch.N], f.batch.Seg)
}

// frames takes frames of seg bytes each apart into runs for one destination each.
func (f *forwarder) frames(b []byte, seg int) {
	for len(b) > 0 {
		p := b[:min(seg, len(b))]
		if p[0] != relay.TypeData {
			f.other(p)
			b = b[len(p):]
			continue
		}
		n := run(b, seg)
		f.data(b[:n], seg)
		b = b[n:]
	}
}

// run returns how many bytes at the start of b are DATA frames to one destination.
func run(b []byte, seg int) int {
	first := b[:min(seg, len(b))]
	if len(first) <= relay.HeaderBytes {
		return len(first)
	}
	dest := ident.Short(first[4:relay.HeaderBytes])
	n := len(first)
	for n < len(b) {
		p := b[n:min(n+seg, len(b))]
		if len(p) <= relay.HeaderBytes || p[0] != relay.TypeData || ident.Short(p[4:relay.HeaderBytes]) != dest {
			break
		}
		n += len(p)
	}
	return n
}

func (f *forwarder) data(b []byte, seg int) {
	if seg <= relay.HeaderBytes || len(b) <= relay.HeaderBytes || seg > relay.MaxFrame {
		f.dropped[dropMalformed].Add(1)
		return
	}
	packets := (len(b) + seg - 1) / seg
	if !f.asked {
		f.src, f.asked = f.table.source(f.from, f.now), true
	}
	src := f.src
	if src == nil {
		f.dropped[dropStranger].Add(uint64(packets))
		return
	}
	f.packetsIn.Add(uint64(packets))
	f.bytesIn.Add(uint64(len(b)))
	if !src.proven.Load() {
		src.in.Add(int64(len(b)))
	}
	if !src.packets.take(packets, f.now) || !src.bytes.take(len(b), f.now) || !f.total.take(len(b), f.now) {
		f.dropped[dropLimit].Add(uint64(packets))
		return
	}
	to := ident.Short(b[4:relay.HeaderBytes])
	dst := f.table.dest(to, f.now)
	switch {
	case dst == nil:
		f.dropped[dropGone].Add(uint64(packets))
		f.gone(src, to)
		return
	case dst.job != src.job:
		// The source learns no more than that it is not there.
		f.dropped[dropCrossJob].Add(uint64(packets))
		f.gone(src, to)
		return
	case !dst.maySend(len(b)):
		f.dropped[dropAmplification].Add(uint64(packets))
		return
	}
	for i := 0; i < len(b); i += seg {
		copy(b[i+4:i+relay.HeaderBytes], src.short[:])
	}
	if l := dst.at.link; l != nil {
		if n := l.out.Put(b, seg); n > 0 {
			f.dropped[dropQueue].Add(uint64(n))
			packets -= n
			b = b[:packets*seg] // about: the last one may be shorter
		}
	} else if err := f.conn.Write(b, seg, f.batch.ECN, dst.at.addr); err != nil {
		f.dropped[dropSend].Add(uint64(packets))
		return
	}
	f.packetsOut.Add(uint64(packets))
	f.bytesOut.Add(uint64(len(b)))
}

// gone tells the source, some times a second, that a destination is not bound. The frame is shorter
// than any DATA, so the rule on amplification holds.
func (f *forwarder) gone(src *session, dest ident.Short) {
	if !src.gone.take(1, f.now) || !src.maySend(relay.GoneBytes) {
		return
	}
	f.out = relay.AppendGone(f.out[:0], f.table.nonceOf(src), dest)
	f.reply(f.conn, f.out, src.at)
}

// other takes what is not DATA.
func (f *forwarder) other(p []byte) {
	switch {
	case p[0] < 4 && f.from.link == nil:
		f.out = f.stun(f.conn, f.out, p, f.batch.From, f.now)
	case p[0] == relay.TypePing:
		f.ping(p)
	case p[0] == relay.TypeBind && len(p) == relay.BindBytes, p[0] == relay.TypeProve && len(p) == relay.ProveBytes:
		f.submit(p)
	default:
		f.dropped[dropMalformed].Add(1)
	}
}

func (f *forwarder) ping(p []byte) {
	m, ok := relay.ParsePing(p)
	if !ok {
		f.dropped[dropMalformed].Add(1)
		return
	}
	switch {
	case f.stands(m.Short, f.from):
		f.out = relay.AppendPong(f.out[:0], relay.Pong{Nonce: m.Nonce, Instance: f.random})
	case f.replies.admits(f.from.addr.Addr(), f.now):
		f.out = relay.AppendUnbound(f.out[:0], m.Nonce)
	default:
		f.dropped[dropLimit].Add(1)
		return
	}
	f.reply(f.conn, f.out, f.from)
}

// stands reports whether packets flow both ways between an origin and the instance at it.
func (f *forwarder) stands(short ident.Short, from origin) bool {
	s := f.table.source(from, f.now)
	return s != nil && s.short == short && f.table.dest(short, f.now) == s
}
