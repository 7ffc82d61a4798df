// Package flood sends datagrams from many addresses at a steady rate, and counts what comes back to each: an attacker as
// experiments need one. It runs in a lab only, in a host that has a whole network (lab.AddNetwork).
package flood

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	tick      = time.Millisecond // between bursts
	burstMost = 1024             // datagrams in one system call
	lagMost   = 20               // ticks that are made up for; what is later is not sent
	buffer    = 4 << 20          // bytes, of the socket; the kernel may cap it
)

// Args say what to send.
type Args struct {
	To        netip.AddrPort `json:"to"`
	Network   netip.Prefix   `json:"network"`   // IPv4, /16 or smaller, of the host's own
	Addresses int            `json:"addresses"` // that datagrams come from, spread over the network
	Rate      int            `json:"rate"`      // datagrams a second
	For       time.Duration  `json:"for"`
	Frames    [][]byte       `json:"frames"` // sent in turn, each datagram from the next address
}

// Report is what came of it.
type Report struct {
	Sent          uint64        `json:"sent"`
	SentBytes     uint64        `json:"sent_bytes"`
	Received      uint64        `json:"received"`
	ReceivedBytes uint64        `json:"received_bytes"`
	Took          time.Duration `json:"took"`
	// Exceeded counts the addresses that got more bytes than they had sent.
	Exceeded int `json:"exceeded"`
}

func (a Args) check() error {
	switch {
	case !a.Network.Addr().Is4() || a.Network.Bits() < 16:
		return fmt.Errorf("flood: network %v: want an IPv4 /16 or less", a.Network)
	case a.Addresses < 1 || a.Addresses > 1<<(32-a.Network.Bits()):
		return fmt.Errorf("flood: %d addresses in %v", a.Addresses, a.Network)
	case a.Rate < 1 || a.For <= 0 || len(a.Frames) == 0:
		return errors.New("flood: nothing to send")
	}
	return nil
}

// addresses are spread evenly, so over as many /24 as there are.
func (a Args) addresses() []net.IP {
	base := a.Network.Masked().Addr().As4()
	step := (1 << (32 - a.Network.Bits())) / a.Addresses
	out := make([]net.IP, a.Addresses)
	for i := range out {
		n := i * step
		out[i] = net.IPv4(base[0], base[1], base[2]|byte(n>>8), base[3]|byte(n)).To4()
	}
	return out
}

// counts are of one address.
type counts struct{ sent, received uint64 }

// Run floods. Datagrams that the kernel does not take are not counted as sent.
func Run(ctx context.Context, a Args) (Report, error) {
	if err := a.check(); err != nil {
		return Report{}, err
	}
	udp, err := net.ListenUDP("udp4", nil)
	if err != nil {
		return Report{}, fmt.Errorf("flood: %w", err)
	}
	defer udp.Close()
	_ = udp.SetReadBuffer(buffer)
	_ = udp.SetWriteBuffer(buffer)
	c := ipv4.NewPacketConn(udp)
	if err := c.SetControlMessage(ipv4.FlagDst, true); err != nil {
		return Report{}, fmt.Errorf("flood: %w", err)
	}
	from := a.addresses()
	byAddr := make([]counts, len(from))
	index := make(map[[4]byte]int, len(from))
	for i, ip := range from {
		index[[4]byte(ip)] = i
	}
	var r Report
	var receiving sync.WaitGroup
	receiving.Go(func() { r.Received, r.ReceivedBytes = receive(c, index, byAddr) })
	sent, bytes, took, err := a.send(ctx, c, from, byAddr)
	// What is under way still comes, within the round trip of a lab.
	_ = udp.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	receiving.Wait()
	r.Sent, r.SentBytes, r.Took = sent, bytes, took
	for _, n := range byAddr {
		if n.received > n.sent {
			r.Exceeded++
		}
	}
	return r, err
}

// send is the only one to write the sent half of counts, receive the other.
func (a Args) send(ctx context.Context, c *ipv4.PacketConn, from []net.IP, byAddr []counts) (n, bytes uint64, took time.Duration, err error) {
	to := net.UDPAddrFromAddrPort(a.To)
	control := make([][]byte, len(from))
	for i, ip := range from {
		control[i] = (&ipv4.ControlMessage{Src: ip}).Marshal()
	}
	batch := make([]ipv4.Message, burstMost)
	for i := range batch {
		batch[i].Buffers = make([][]byte, 1)
		batch[i].Addr = to
	}
	began := time.Now()
	next := 0.0 // datagrams due so far
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for at := 0; ; {
		took = time.Since(began)
		if took >= a.For {
			return n, bytes, took, nil
		}
		due := float64(a.Rate) * took.Seconds()
		next = max(next, due-lagMost*tick.Seconds()*float64(a.Rate))
		for next < due && ctx.Err() == nil && time.Since(began) < a.For {
			burst := batch[:min(burstMost, int(due-next)+1)]
			for i := range burst {
				burst[i].Buffers[0] = a.Frames[(at+i)%len(a.Frames)]
				burst[i].OOB = control[(at+i)%len(control)]
			}
			k, err := c.WriteBatch(burst, 0)
			if err != nil {
				return n, bytes, took, fmt.Errorf("flood: %w", err)
			}
			for i := range k {
				size := uint64(len(burst[i].Buffers[0]))
				byAddr[(at+i)%len(byAddr)].sent += size
				bytes += size
			}
			n += uint64(k)
			next += float64(k)
			at += k
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return n, bytes, took, ctx.Err()
		}
	}
}

func receive(c *ipv4.PacketConn, index map[[4]byte]int, byAddr []counts) (n, bytes uint64) {
	batch := make([]ipv4.Message, 64)
	for i := range batch {
		batch[i].Buffers = [][]byte{make([]byte, 1500)}
		batch[i].OOB = ipv4.NewControlMessage(ipv4.FlagDst)
	}
	for {
		k, err := c.ReadBatch(batch, 0)
		if err != nil {
			return n, bytes
		}
		for _, m := range batch[:k] {
			n++
			bytes += uint64(m.N)
			var cm ipv4.ControlMessage
			if cm.Parse(m.OOB[:m.NN]) == nil && cm.Dst.To4() != nil {
				if i, ok := index[[4]byte(cm.Dst.To4())]; ok {
					byAddr[i].received += uint64(m.N)
				}
			}
		}
	}
}
