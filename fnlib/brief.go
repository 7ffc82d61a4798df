package fnlib

import (
	"io"
	"time"
)

// briefState is the largest state that goes in one write with its header and trailer: each write takes packets of its own, and wakes both
// ends. Writes of so few bytes tell a chooser nothing of the link's rate.
const briefState = 12 << 10

// brief tells whether the state is so small, and can be read without waiting.
func (o *outgoing) brief() bool { return o.src.want == nil && o.header.size <= briefState }

// opening returns the header of the stream that begins, or nothing if that is held back.
func (o *outgoing) opening() []byte {
	if !o.went.IsZero() {
		o.header.age = time.Since(o.went)
	}
	o.out = gathered{}
	if !o.brief() || o.resumes {
		return appendSendHeader(nil, o.header)
	}
	room := sendHeaderSize + len(o.header.key) + frameHead + int(o.header.size) + trailerSize
	o.out = gathered{buf: appendSendHeader(make([]byte, 0, room), o.header), held: true}
	return nil
}

// gathered holds what is written back until release.
type gathered struct {
	w    io.Writer
	buf  []byte
	held bool
}

// Write implements io.Writer.
func (g *gathered) Write(b []byte) (int, error) {
	if g.held {
		g.buf = append(g.buf, b...)
		return len(b), nil
	}
	return g.w.Write(b)
}

// release writes what was held back, and holds nothing from then on.
func (g *gathered) release() error {
	if !g.held {
		return nil
	}
	b := g.buf
	g.held, g.buf = false, nil
	_, err := g.w.Write(b)
	return err
}
