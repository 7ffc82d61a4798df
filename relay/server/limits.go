package server

import (
	"errors"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Limits of a relay. In the first three zero means the default; in the rates zero means no limit. None may be negative.
type Limits struct {
	Sessions  int // in all; 65536
	PerJob    int // 16384
	PerPrefix int // of one IPv4 /24 or IPv6 /64; 16384

	PacketsPerSecond    int64 // sent by one session
	BytesPerSecond      int64 // sent by one session
	TotalBytesPerSecond int64 // of all
}

func (l Limits) check() error {
	if min(l.Sessions, l.PerJob, l.PerPrefix) < 0 || min(l.PacketsPerSecond, l.BytesPerSecond, l.TotalBytesPerSecond) < 0 {
		return errors.New("a limit is negative")
	}
	return nil
}

func (l Limits) withDefaults() Limits {
	for _, d := range []struct {
		n   *int
		def int
	}{{&l.Sessions, 65536}, {&l.PerJob, 16384}, {&l.PerPrefix, 16384}} {
		if *d.n == 0 {
			*d.n = d.def
		}
	}
	return l
}

// bucket is a token bucket that holds a quarter of a second's worth. It may go into debt by one batch,
// so that a batch need not be split.
type bucket struct {
	rate int64 // per second; 0 is unlimited

	mu   sync.Mutex // guards what follows
	full bool
	have float64
	last time.Duration
}

func (b *bucket) take(n int, now time.Duration) bool {
	if b.rate == 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	most := float64(b.rate) / 4
	if !b.full {
		b.full, b.have, b.last = true, most, now
	}
	if now > b.last {
		b.have = min(b.have+float64(b.rate)*(now-b.last).Seconds(), most)
		b.last = now
	}
	if b.have <= 0 {
		return false
	}
	b.have -= float64(n)
	return true
}

// gate bounds how often a network gets through a second: control frames to the signature checks, which cost
// some 50 µs each, STUN requests and pings without a session to an answer, which may go to an address that was forged,
// and connections to the TLS handshake, which costs most. Networks share a fixed number of buckets by a seeded hash.
type gate struct {
	seed    maphash.Seed
	buckets [1024]bucket
}

// A fan-out of thousands behind one NAT gateway passes; a flood from one network takes a fraction of a core.
const (
	gateRate  = 16000 // so 4000 at once
	replyRate = 16000
	linkRate  = 4000 // so 1000 at once
)

func newGate(rate int64) *gate {
	g := &gate{seed: maphash.MakeSeed()}
	for i := range g.buckets {
		g.buckets[i].rate = rate
	}
	return g
}

func (g *gate) admits(from netip.Addr, now time.Duration) bool {
	h := maphash.Comparable(g.seed, prefixOf(from))
	return g.buckets[h%uint64(len(g.buckets))].take(1, now)
}

// prefixOf is the network that shares a limit: a /24 or a /64.
func prefixOf(a netip.Addr) netip.Prefix {
	bits := 64
	if a = a.Unmap(); a.Is4() {
		bits = 24
	}
	p, _ := a.WithZone("").Prefix(bits) // fails for the zero Addr only
	return p
}
