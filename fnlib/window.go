package fnlib

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// A sender keeps what the receiver's application has not read yet, so that a state goes on where it was when its link breaks, whatever it is
// read from, and always with the bytes that were sent before.
const (
	maxPieces  = 64        // of chunkSize: 16 MiB, as much as QUIC has under way in one stream
	takenEvery = 1 << 20   // bytes between two TAKEN
	roomFor    = 64 << 10  // a piece with less room than that is full
	smallState = 128 << 10 // has a piece of its own size: many may be under way
)

// pieces are the buffers of sends under way.
var pieces = sync.Pool{New: func() any { return &piece{buf: make([]byte, frameHead+chunkSize)} }}

const frameHead = 4 // bytes of a chunk's length

// piece holds chunks as they go over the wire, each with its length before it.
type piece struct {
	buf  []byte
	used int
	raw  int64 // bytes of the state in it
}

// least is how many bytes there must be room for, or the piece is full.
func (p *piece) least() int {
	if len(p.buf) < frameHead+chunkSize {
		return 1
	}
	return roomFor
}

// window is the part of a state that was read and not taken. It belongs to the goroutine that sends.
type window struct {
	size  uint64 // of the state; unknownSize
	held  []*piece
	start int64 // offset in the state of the first byte held
	end   int64 // offset of the byte after the last one
}

// release lets go what was taken. The newest piece stays, since the next chunk may go into it.
func (w *window) release(taken int64) {
	for len(w.held) > 1 && w.start+w.held[0].raw <= taken {
		w.drop(true)
	}
}

func (w *window) drop(reuse bool) {
	p := w.held[0]
	w.start += p.raw
	w.held[0] = nil
	w.held = w.held[1:]
	if reuse && len(p.buf) == frameHead+chunkSize {
		p.used, p.raw = 0, 0
		pieces.Put(p)
	}
}

// clear forgets everything; the next byte is at that offset. The newest piece is not used again if a reader may still write to it.
func (w *window) clear(at int64, left bool) {
	for len(w.held) > 0 {
		w.drop(!left || len(w.held) > 1)
	}
	w.start, w.end = at, at
}

// room returns where the next chunk's bytes go, or nil if the window is full.
func (w *window) room() []byte {
	if n := len(w.held); n > 0 {
		if p := w.held[n-1]; len(p.buf)-p.used >= frameHead+p.least() {
			return p.buf[p.used+frameHead:]
		}
		if n == maxPieces {
			return nil
		}
	}
	p := w.piece()
	w.held = append(w.held, p)
	return p.buf[frameHead:]
}

// piece returns an empty one.
func (w *window) piece() *piece {
	if w.size <= smallState && w.end == 0 {
		return &piece{buf: make([]byte, frameHead+int(w.size)+frameHead+1)} // one chunk, and a byte in which it would show that there is more
	}
	return pieces.Get().(*piece)
}

// add makes a chunk of the first n bytes of room, and returns it with its length before it.
func (w *window) add(n int) []byte {
	p := w.held[len(w.held)-1]
	chunk := p.buf[p.used : p.used+frameHead+n]
	binary.BigEndian.PutUint32(chunk, uint32(n))
	p.used += len(chunk)
	p.raw += int64(n)
	w.end += int64(n)
	return chunk
}

// from calls each for the chunks from an offset on, without their lengths.
func (w *window) from(offset int64, each func(raw []byte) error) error {
	if offset < w.start || offset > w.end {
		return fmt.Errorf("%w: taken up to byte %d, bytes %d to %d are kept", errWire, offset, w.start, w.end)
	}
	at := w.start
	for _, p := range w.held {
		for b := p.buf[:p.used]; len(b) > 0; {
			n := int64(binary.BigEndian.Uint32(b))
			raw := b[frameHead : frameHead+n]
			b = b[frameHead+n:]
			if skip := max(offset-at, 0); skip < n {
				if err := each(raw[skip:]); err != nil {
					return err
				}
			}
			at += n
		}
	}
	return nil
}
