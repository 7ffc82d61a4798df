package natsim

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"time"
)

// Network is the public network, the private ones behind NATs, and their time. It is not safe for
// concurrent use.
type Network struct {
	now    time.Time
	rng    *rand.Rand
	queue  queue
	serial int
	hosts  map[netip.AddrPort]*Host // on the public network
	nats   map[netip.Addr]*NAT

	// Delay of a packet between two public addresses, and chance of losing it, by source and
	// destination as seen on the public network. A packet inside a private network takes LANDelay.
	Delay    func(from, to netip.Addr) time.Duration
	Loss     func(from, to netip.Addr) float64
	LANDelay time.Duration
	// MTU is the most bytes that a packet on the public network may have; 0 = any.
	MTU int
	// Tap sees each packet that a host sends, before anything drops it.
	Tap func(from *Host, to netip.AddrPort, data []byte)
}

// Host is one UDP endpoint.
type Host struct {
	net     *Network
	addr    netip.AddrPort // own, as the host sees it
	nat     *NAT           // nil = public
	Receive func(now time.Time, from netip.AddrPort, data []byte)
}

// New returns an empty network whose time is start. Each packet takes delay.
func New(seed uint64, start time.Time, delay time.Duration) *Network {
	return &Network{
		now: start, rng: rand.New(rand.NewPCG(seed, 1)),
		hosts: make(map[netip.AddrPort]*Host), nats: make(map[netip.Addr]*NAT),
		Delay: func(_, _ netip.Addr) time.Duration { return delay },
		Loss:  func(_, _ netip.Addr) float64 { return 0 },
	}
}

// Now returns the network's time.
func (n *Network) Now() time.Time { return n.now }

// Rand returns the network's random source.
func (n *Network) Rand() *rand.Rand { return n.rng }

// AddNAT puts a NAT on the public network.
func (n *Network) AddNAT(k Kind, public netip.Addr) *NAT {
	nat := NewNAT(k, public, n.rng)
	n.nats[public] = nat
	return nat
}

// AddHost puts an endpoint behind a NAT, or on the public network if nat is nil.
func (n *Network) AddHost(addr netip.AddrPort, nat *NAT) *Host {
	h := &Host{net: n, addr: addr, nat: nat}
	n.hosts[h.key(addr)] = h
	return h
}

// key tells equal private addresses behind different NATs apart by the NAT's address as IPv6 zone.
func (h *Host) key(a netip.AddrPort) netip.AddrPort { return lanKey(h.nat, a) }

func lanKey(nat *NAT, a netip.AddrPort) netip.AddrPort {
	if nat == nil {
		return a
	}
	zone := netip.AddrFrom16(a.Addr().As16()).WithZone(nat.public.String())
	return netip.AddrPortFrom(zone, a.Port())
}

// Addr returns the host's own address.
func (h *Host) Addr() netip.AddrPort { return h.addr }

// Move puts the host behind another NAT (nil = public) at another address, as a change of network
// does.
func (h *Host) Move(addr netip.AddrPort, nat *NAT) {
	delete(h.net.hosts, h.key(h.addr))
	h.addr, h.nat = addr, nat
	h.net.hosts[h.key(addr)] = h
}

// Close takes the host off the network, as closing its socket does.
func (h *Host) Close() { delete(h.net.hosts, h.key(h.addr)) }

// MappedFor returns the address that a server at far would see: what STUN is for. It is false
// if the NAT lets nothing out.
func (h *Host) MappedFor(far netip.AddrPort) (netip.AddrPort, bool) {
	if h.nat == nil {
		return h.addr, true
	}
	return h.nat.Outbound(h.net.now, h.addr, far)
}

// Send puts a packet on its way. Data is copied.
func (h *Host) Send(to netip.AddrPort, data []byte) {
	n := h.net
	if n.Tap != nil {
		n.Tap(h, to, data)
	}
	data = append([]byte(nil), data...)
	if h.nat == nil {
		n.public(h.addr, to, data)
		return
	}
	if peer, ok := n.hosts[h.key(to)]; ok {
		n.deliver(n.LANDelay, peer, h.addr, data)
		return
	}
	from, ok := h.nat.Outbound(n.now, h.addr, to)
	if !ok || to.Addr().IsPrivate() {
		return
	}
	if to.Addr() == h.nat.public {
		if h.nat.kind.Hairpin {
			n.inbound(h.nat, from, to, data)
		}
		return
	}
	n.public(from, to, data)
}

// public carries a packet across the public network.
func (n *Network) public(from, to netip.AddrPort, data []byte) {
	if n.MTU > 0 && len(data) > n.MTU || n.rng.Float64() < n.Loss(from.Addr(), to.Addr()) {
		return
	}
	n.After(n.Delay(from.Addr(), to.Addr()), func() {
		if nat, ok := n.nats[to.Addr()]; ok {
			n.inbound(nat, from, to, data)
		} else if h, ok := n.hosts[to]; ok {
			h.receive(from, data)
		}
	})
}

func (n *Network) inbound(nat *NAT, from, to netip.AddrPort, data []byte) {
	inner, ok := nat.Inbound(n.now, from, to.Port())
	if !ok {
		return
	}
	if h, ok := n.hosts[lanKey(nat, inner)]; ok {
		n.deliver(n.LANDelay, h, from, data)
	}
}

func (n *Network) deliver(after time.Duration, h *Host, from netip.AddrPort, data []byte) {
	n.After(after, func() { h.receive(from, data) })
}

func (h *Host) receive(from netip.AddrPort, data []byte) {
	if h.Receive != nil {
		h.Receive(h.net.now, from, data)
	}
}

// After calls f when d has passed.
func (n *Network) After(d time.Duration, f func()) { n.At(n.now.Add(d), f) }

// At calls f at t, or next if t is past. What is due at the same time runs in the order of the calls.
func (n *Network) At(t time.Time, f func()) {
	if t.Before(n.now) {
		t = n.now
	}
	n.serial++
	heap.Push(&n.queue, event{t, n.serial, f})
}

// Run takes events until d has passed.
func (n *Network) Run(d time.Duration) {
	end := n.now.Add(d)
	n.RunUntil(end, func() bool { return false })
	n.now = end
}

// RunUntil takes events until stop, asked after each, or the queue is empty, or end has come. It
// reports whether stop said so.
func (n *Network) RunUntil(end time.Time, stop func() bool) bool {
	for len(n.queue) > 0 && !n.queue[0].at.After(end) {
		e := heap.Pop(&n.queue).(event)
		n.now = e.at
		e.do()
		if stop() {
			return true
		}
	}
	return false
}

type event struct {
	at     time.Time
	serial int
	do     func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].serial < q[j].serial
	}
	return q[i].at.Before(q[j].at)
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}
