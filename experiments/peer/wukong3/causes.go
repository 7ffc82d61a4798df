package wukong3

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// Causes are what made the port slow. The zero value has none of them. They are the same at both ends of a pairing.
type Causes struct {
	// Serial: a node has one set-up at a time, from its socket to the end of the handshake. Wukong's final fan-ins are a few
	// nodes behind whose set-ups all others queue (thesis, 5.5); SNC's pair() blocks, and FMI pairs with one after the other.
	Serial bool `json:"serial,omitempty"`
	// Resend is how long after a packet of the punching the next is sent, if nothing comes: 250 ms in UDT ("at most 1 request per 250ms", CUDT::connect). The first goes at once, and
	// is lost at the other end's NAT if that end has not sent its own. Who is connected does not say so unasked, as in UDT. 0 is 10 ms, and it does.
	Resend time.Duration `json:"resend,omitempty"`
	// NewSocket: each pairing has a socket and a TLS connection to the coordinator of its own, and leaves the coordinator before
	// the state is sent, as SNC's pair(): TCP, TLS, mapped address, and at the end a round trip to close what was a WebSocket there.
	// Else a node has one of both for all its pairings, from Open.
	NewSocket bool `json:"new_socket,omitempty"`
	// Window is how many bytes are under way at most: UDT has a send buffer of 64 KiB for its UDP socket (m_iUDPSndBufSize). 0 is as plainquic.
	Window int `json:"window,omitempty"`
	// Rate is how many bytes a second an end sends of one state. It is no cause, but what was measured of SNC's links, 50 to 60 Mb/s: why they were so slow
	// (fragments of 9,000 bytes, UDT's control of its rate, the buffer) is not known. A figure with it is a modelled one. 0 is no limit.
	Rate int64 `json:"rate,omitempty"`
}

// All returns what the port had: all causes, and 55 Mb/s.
func All() Causes {
	return Causes{Serial: true, Resend: 250 * time.Millisecond, NewSocket: true, Window: 64 << 10, Rate: 55e6 / 8}
}

const (
	maxResend = time.Minute
	minWindow = 4 << 10
)

func (c Causes) check() error {
	switch {
	case c.Resend < 0 || c.Resend > maxResend:
		return fmt.Errorf("resend %v: want 0 to %v", c.Resend, maxResend)
	case c.Window != 0 && c.Window < minWindow:
		return fmt.Errorf("window %d: want 0, or %d and more", c.Window, minWindow)
	case c.Rate < 0:
		return errors.New("negative rate")
	}
	return nil
}

// paced reads from r at a rate.
type paced struct {
	r     io.Reader
	rate  int64
	sleep func(time.Duration)
	began time.Time
	read  int64
}

// pacedBytes is how much is read at once: 5 ms at 55 Mb/s.
const pacedBytes = 32 << 10

func (p *paced) Read(b []byte) (int, error) {
	if p.began.IsZero() {
		p.began = time.Now()
	}
	n, err := p.r.Read(b[:min(len(b), pacedBytes)])
	p.read += int64(n)
	due := p.began.Add(time.Duration(float64(p.read) / float64(p.rate) * float64(time.Second)))
	p.sleep(time.Until(due))
	return n, err
}
