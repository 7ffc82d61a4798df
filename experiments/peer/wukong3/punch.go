package wukong3

import "time"

// punchPace is what Resend is where it is no cause: as often as package plainquic.
const punchPace = 10 * time.Millisecond

// puncher is one end of UDT's rendezvous (CUDT::connect and CRendezvousQueue::updateConnStatus of src/core.cpp and queue.cpp, UDT 4), without socket and
// clock: its request types 0, -1 and -2 are CALLING, AGREED and CONNECTED here. It calls until it hears something, says at once that it
// has, and is connected when the other end says the same, or sends data. Who is connected tells nobody, but who asks again.
type puncher struct {
	resend time.Duration
	eager  bool // tells the other end that it is connected: not as UDT
	says   byte // the kind of its last packet: what it has reached
	next   time.Time
}

func newPuncher(resend time.Duration, now time.Time) *puncher {
	p := &puncher{resend: resend, says: udpCalling, next: now}
	if resend == 0 {
		p.resend, p.eager = punchPace, true
	}
	return p
}

func (p *puncher) connected() bool { return p.says == udpConnected }

// tick returns the packet that is due, or 0.
func (p *puncher) tick(now time.Time) byte {
	if p.connected() || now.Before(p.next) {
		return 0
	}
	p.next = now.Add(p.resend)
	return p.says
}

// heard takes a packet of the other end's, and returns the answer to it, or 0.
func (p *puncher) heard(kind byte, now time.Time) byte {
	switch {
	case p.connected():
		if kind == udpConnected {
			return 0
		}
		return udpConnected
	case kind == udpCalling || p.says == udpCalling:
		p.says, p.next = udpAgreed, now.Add(p.resend)
		return udpAgreed
	}
	p.says = udpConnected
	if p.eager {
		return udpConnected
	}
	return 0
}

// data takes a sign that the other end is connected.
func (p *puncher) data() { p.says = udpConnected }
