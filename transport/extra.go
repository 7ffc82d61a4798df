package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/transport/punch"
)

const (
	// maxExtra is the most extra sockets that an endpoint has open for attempts at NATs; platforms such as AWS Lambda
	// allow 1,024 files. An attempt that finds less room than it asks for does without, and is repeated later.
	maxExtra      = 320
	sampleTimeout = 1500 * time.Millisecond
)

// extra is a socket beside the instance's own: one of those with which a peer behind a NAT with predictable or random
// ports is looked for (package punch). It serves that peer alone. If it is the one that meets, it becomes its
// path. Until then it costs a goroutine and 2 KiB of buffer: some 1.5 MiB for the 256 of the birthday method.
type extra struct {
	owner *remote
	id    int
	raw   udpx.Socket
	out   udpx.Socket // raw, or a coalescer once it is the path; set before a route names it
	path  atomic.Bool // reads take many packets at a time
}

// extras are the open ones of a peer. They are for the peer's goroutine.
type extras struct {
	open    map[int]*extra
	counted int // of them, in hub.extras
}

// openExtra does what the state machine asked for. Its answer is an event.
func (p *remote) openExtra(o *punch.Open) {
	opened := punch.Opened{Number: o.First}
	servers := *p.hub.answering.Load()
	if o.Sample && len(servers) < 2 || !p.hub.reserve(o.Count) {
		p.post(opened)
		return
	}
	p.extras.counted += o.Count
	var first *question
	for i := range o.Count {
		x, err := p.addExtra(o.First + i)
		if err != nil {
			p.hub.log.Debug("transport: no extra socket", "error", err)
			break
		}
		opened.Count++
		switch {
		case o.Sample && i == 0:
			first = p.hub.stun.begin(servers[0], x.send)
		case o.Sample && i == o.Count-1:
		case o.To.IsValid():
			_ = x.send(o.Data, o.To) // lost probes are repeated by another attempt
		}
	}
	if opened.Count < o.Count || !o.Sample {
		if first != nil {
			first.cancel()
		}
		p.post(opened)
		return
	}
	// Another server, so that the mapping is another even if the socket is the same.
	last := p.hub.stun.begin(servers[1], p.extras.open[o.First+o.Count-1].send)
	p.sampling.Go(func() {
		ctx, cancel := context.WithTimeout(p.ctx, sampleTimeout)
		defer cancel()
		var err1, err2 error
		opened.First, err1 = first.wait(ctx)
		opened.Last, err2 = last.wait(ctx)
		if err := errors.Join(err1, err2); err != nil {
			p.hub.log.Debug("transport: STUN did not tell where the NAT's ports stand", "error", err)
		}
		p.post(opened)
	})
}

func (p *remote) addExtra(id int) (*extra, error) {
	raw, err := p.hub.listen()
	if err != nil {
		return nil, err
	}
	x := &extra{owner: p, id: id, raw: raw, out: raw}
	if p.extras.open == nil {
		p.extras.open = make(map[int]*extra)
	}
	p.extras.open[id] = x
	p.hub.wg.Go(x.read)
	return x, nil
}

// closeExtra closes all extra sockets but one. A socket that is a path does not count against attempts.
func (p *remote) closeExtra(keep int) {
	for id, x := range p.extras.open {
		if id != keep {
			_ = x.out.Close() // nothing to lose: datagrams
			delete(p.extras.open, id)
		}
	}
	p.hub.reserve(-p.extras.counted)
	p.extras.counted = 0
}

func (x *extra) send(b []byte, to netip.AddrPort) error {
	err := x.out.Write(b, len(b), 0, to)
	if err != nil && udpx.IsTransient(err) {
		return nil // a lost packet
	}
	return err
}

// promote readies a socket for the traffic of a path.
func (x *extra) promote() {
	if !x.path.Swap(true) {
		x.out = coalesce(x.raw, &x.owner.hub.wg, x.owner.hub.sendFailed)
	}
}

func (x *extra) read() {
	h := x.owner.hub
	var b udpx.Batch
	for {
		pool := h.small // a probe at a time, until there is more to expect
		if x.path.Load() {
			pool = h.big
		}
		buf := getBuffer(pool)
		b.Buf = buf.b
		err := x.raw.Read(&b)
		if err == nil {
			h.dispatch(&b, buf, x)
		}
		buf.release()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // a lasting failure must not spin
		}
	}
}

// reserve takes n of the extra sockets that there may be, or gives them back if n is negative.
func (h *hub) reserve(n int) bool {
	if h.extras.Add(int64(n)) > maxExtra && n > 0 {
		h.extras.Add(int64(-n))
		return false
	}
	return true
}

// listen opens one more socket where the IPv4 one is.
func (h *hub) listen() (udpx.Socket, error) {
	c, ok := h.v4.(*coalescer)
	if ok {
		_, ok = c.Socket.(*udpx.Conn)
	}
	if !ok {
		return nil, errors.New("transport: no IPv4 socket of the system's")
	}
	return udpx.Listen("udp4", netip.AddrPortFrom(h.v4.LocalAddr().Addr(), 0))
}

// Guesses are probes to ports that nobody named (package punch). However many peers name one address, and be
// it a stranger's, this is what an endpoint sends there: two attempts of the birthday method, 2,048 probes of 64
// bytes each, and one more every five minutes. An address where one was answered has shown that a member of the job is there:
// its account begins afresh, for many functions may share one NAT. To all addresses together
// go no more than 1,000 in a second, enough for three attempts at a time.
const (
	guessBurst     = 2 * 2048
	guessRefill    = 2048.0 / 300 // a second
	guessTotal     = 1000
	guessAddresses = 1024 // that are remembered; with more of them there are no guesses until one has refilled
)

type guessBudget struct {
	mu        sync.Mutex // guards what follows
	total     allowance
	addresses map[netip.Addr]*allowance
}

// allowance is a token bucket.
type allowance struct {
	used float64
	at   time.Time
}

// take takes one token of a bucket that holds size and refills by rate a second.
func (a *allowance) take(now time.Time, size, rate float64) bool {
	a.settle(now, rate)
	if a.used+1 > size {
		return false
	}
	a.used++
	return true
}

func (a *allowance) settle(now time.Time, rate float64) {
	a.used = max(0, a.used-rate*now.Sub(a.at).Seconds())
	a.at = now
}

// allow reports whether one more guess may go to an address.
func (g *guessBudget) allow(now time.Time, to netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.addresses[to]
	if a == nil {
		for ip, o := range g.addresses {
			if len(g.addresses) < guessAddresses {
				break
			}
			if o.settle(now, guessRefill); o.used == 0 {
				delete(g.addresses, ip)
			}
		}
		if len(g.addresses) >= guessAddresses {
			return false
		}
		if g.addresses == nil {
			g.addresses = make(map[netip.Addr]*allowance)
		}
		a = &allowance{at: now}
		g.addresses[to] = a
	}
	return g.total.take(now, guessTotal, guessTotal) && a.take(now, guessBurst, guessRefill)
}

// forgive is for an address that has answered.
func (g *guessBudget) forgive(a netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.addresses, a)
}

// answeringServers are the STUN servers that have answered, IPv4 only, in the order in which they were asked.
func answeringServers(servers, got []netip.AddrPort) []netip.AddrPort {
	var out []netip.AddrPort
	for i, a := range got {
		if a.Addr().Is4() && !slices.Contains(out, servers[i]) {
			out = append(out, servers[i])
		}
	}
	return out
}
