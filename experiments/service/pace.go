package service

import (
	"net"
	"time"
)

const (
	paceBytes = 64 << 10
	// makeUp is how far behind its rate a connection may be and catch up: sleeps end late, and other work takes time. Within any time t
	// no more than the rate gives in t and makeUp is carried.
	makeUp = 5 * time.Millisecond
)

// pacer spreads bytes over time, for one goroutine.
type pacer struct {
	rate  int64
	sleep sleeper
	next  time.Time // when all that has been sent would be there
}

// wait returns when n more bytes have had their time.
func (p *pacer) wait(n int) {
	now := time.Now()
	if now.Sub(p.next) > makeUp {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(int64(n) * int64(time.Second) / p.rate))
	if d := p.next.Sub(now); d > 0 {
		p.sleep(d)
	}
}

// pacedConn is a connection with a bounded rate each way. Bytes are there when their time is over, however few they are.
type pacedConn struct {
	net.Conn
	in, out pacer
}

func (c *pacedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b[:min(len(b), paceBytes)])
	if n > 0 {
		c.in.wait(n)
	}
	return n, err
}

func (c *pacedConn) Write(b []byte) (n int, err error) {
	for {
		part := b[n:min(len(b), n+paceBytes)]
		c.out.wait(len(part))
		wrote, err := c.Conn.Write(part)
		if n += wrote; err != nil || n == len(b) {
			return n, err
		}
	}
}

// CloseWrite ends what is sent.
func (c *pacedConn) CloseWrite() error { return closeWrite(c.Conn) }

func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

type pacedListener struct {
	net.Listener
	rate  int64
	sleep sleeper
}

func (l pacedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &pacedConn{Conn: c, in: pacer{rate: l.rate, sleep: l.sleep}, out: pacer{rate: l.rate, sleep: l.sleep}}, nil
}
