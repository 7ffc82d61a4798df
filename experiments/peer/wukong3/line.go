package wukong3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/fnwire/fnwire/experiments/peer/plainquic"
)

// line is a node's connection to the coordinator.
type line struct {
	conn  *tls.Conn
	ended chan struct{}

	mu      sync.Mutex // guards what follows, and writing
	pending map[uint32]chan any
	last    uint32
	err     error // why it has ended
}

func dialLine(ctx context.Context, cfg *Config) (*line, error) {
	conf, err := plainquic.ClientTLS(cfg.Certificate, alpn)
	if err != nil {
		return nil, err
	}
	raw, err := cfg.Dial(ctx, "tcp", cfg.Coordinator.String())
	if err != nil {
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("coordinator: %w", err)
	}
	l := &line{conn: conn, ended: make(chan struct{}), pending: make(map[uint32]chan any)}
	go l.run()
	return l, nil
}

// run hands answers to who waits for them, until the connection ends.
func (l *line) run() {
	defer close(l.ended)
	var err error
	for err == nil {
		var msg any
		if msg, err = read(l.conn); err != nil {
			break
		}
		var number uint32
		switch m := msg.(type) {
		case matchMsg:
			number = m.number
		case refusedMsg:
			number = m.number
		default:
			err = errMalformed
		}
		l.mu.Lock()
		if answer := l.pending[number]; answer != nil {
			answer <- msg
			delete(l.pending, number)
		}
		l.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	for _, answer := range l.pending {
		close(answer)
	}
	clear(l.pending)
}

// ask asks for the other end of a pairing. The answer is a matchMsg or a refusedMsg; the channel is closed if the connection ends before.
func (l *line) ask(m pairMsg) (number uint32, answer <-chan any, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, nil, l.gone()
	}
	l.last++
	m.number = l.last
	c := make(chan any, 1)
	l.pending[m.number] = c
	return m.number, c, l.write(m.append(nil))
}

// done tells that a pairing is over.
func (l *line) done(number uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, number)
	if l.err == nil {
		_ = l.write(doneMsg{number}.append(nil))
	}
}

func (l *line) write(b []byte) error {
	if err := l.conn.SetWriteDeadline(time.Now().Add(helloTime)); err != nil {
		return l.gone()
	}
	if _, err := l.conn.Write(b); err != nil {
		return fmt.Errorf("coordinator: %w", err)
	}
	return nil
}

// gone says why the connection has ended.
func (l *line) gone() error {
	if l.err == nil || errors.Is(l.err, io.EOF) || errors.Is(l.err, net.ErrClosed) {
		return errors.New("the coordinator has closed the connection: open another node")
	}
	return fmt.Errorf("coordinator: %w: open another node", l.err)
}

func (l *line) why() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gone()
}

// leave closes the connection and waits until the coordinator has done so too, as a WebSocket is closed.
func (l *line) leave(ctx context.Context) {
	defer l.close()
	if l.conn.CloseWrite() != nil {
		return
	}
	select {
	case <-l.ended:
	case <-ctx.Done():
	}
}

// close may be called again.
func (l *line) close() {
	_ = l.conn.NetConn().Close()
	<-l.ended
}
