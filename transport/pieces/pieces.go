package pieces

import "sync"

// waiting is how many packets of which one piece has arrived are kept. The two pieces of a packet leave one after the other, so more
// are lost, or were held back by the network for long.
const waiting = 16

// Codec is one side's end of what two instances send each other: it takes up to 23 KiB once pieces arrive, and little before. It is
// safe for concurrent use.
type Codec struct {
	mu      sync.Mutex // guards what follows
	out, in *sealer
	number  uint16
	parts   []part // by number; nil before the first piece
}

// part is a packet of which one piece is there.
type part struct {
	number uint16
	length int  // 0: none
	has    byte // the Subject of the piece
	b      []byte
}

// New makes one from the keys of what is sent and of what is received.
func New(out, in [32]byte) *Codec { return &Codec{out: newSealer(out), in: newSealer(in)} }

// Cut appends the two pieces of a packet of 2 to MaxPacket bytes to dst. Each is Len(len(packet)) bytes long.
func (c *Codec) Cut(dst, packet []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number++
	half := Len(len(packet)) - HeaderBytes
	for i, body := range [2][]byte{packet[:half], packet[len(packet)-half:]} {
		n := len(dst)
		dst = append(append(dst, header[:]...), body...)
		c.out.seal(dst[n:], Message{Kind: Piece, Subject: byte(i), Number: c.number, Length: len(packet)})
	}
	return dst
}

var header [HeaderBytes]byte

// Join takes a piece. When it completes a packet, that is appended to dst. whole is nil if there is none yet.
func (c *Codec) Join(dst, piece []byte) (whole []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, err := c.in.open(piece)
	if err != nil {
		return nil, err
	}
	if m.Kind != Piece {
		return nil, errType
	}
	if c.parts == nil {
		c.parts = make([]part, waiting)
	}
	p, body := &c.parts[m.Number%waiting], piece[HeaderBytes:]
	if p.number != m.Number || p.length != m.Length {
		p.number, p.length, p.has = m.Number, m.Length, m.Subject
		p.b = append(p.b[:0], body...)
		return nil, nil
	}
	if p.has == m.Subject {
		return nil, nil // the same again
	}
	front, back := p.b, body
	if m.Subject == 0 {
		front, back = back, front
	}
	p.length = 0
	return append(append(dst, front...), back[len(front)+len(back)-m.Length:]...), nil
}

// Ask appends a question of size bytes, HeaderBytes to MaxPacket, to dst.
func (c *Codec) Ask(dst []byte, subject byte, number uint16, size int) []byte {
	n := len(dst)
	dst = append(dst, make([]byte, size)...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.seal(dst[n:], Message{Kind: Question, Subject: subject, Number: number})
	return dst
}

// Reply appends the answer to a question to dst.
func (c *Codec) Reply(dst []byte, q Message) []byte {
	n := len(dst)
	dst = append(dst, header[:]...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.seal(dst[n:], Message{Kind: Answer, Subject: q.Subject, Number: q.Number})
	return dst
}

// Open reads a question or an answer.
func (c *Codec) Open(b []byte) (Message, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, err := c.in.open(b)
	if err == nil && m.Kind == Piece {
		err = errType
	}
	return m, err
}
