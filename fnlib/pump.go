package fnlib

import (
	"io"
	"sync"
	"time"

	"github.com/fnwire/fnwire/internal/zchunk"
)

// frames are buffers for compressed chunks, with their heads, and for what is decompressed.
var frames = sync.Pool{New: func() any { return new(frame) }}

type frame [compressedHead + zchunk.MaxFrame]byte

// pump writes the chunks of a state, compressed where that is faster, each while the next is being made: QUIC takes bytes only while Write is
// called. It belongs to the goroutine that sends.
type pump struct {
	w       io.Writer
	chooser *zchunk.Chooser // nil: nothing is compressed
	todo    chan []byte
	done    chan written
	busy    bool
	err     error
	spare   [2]*frame // one is filled while the other is written
	wire    int64     // bytes of chunks that were put, with their heads
}

type written struct {
	n    int
	took time.Duration
	err  error
}

func newPump(w io.Writer, c *zchunk.Chooser) *pump {
	p := &pump{w: w, chooser: c, todo: make(chan []byte), done: make(chan written)}
	go p.run()
	return p
}

func (p *pump) run() {
	defer close(p.done)
	for b := range p.todo {
		began := time.Now()
		n, err := p.w.Write(b)
		p.done <- written{n, time.Since(began), err}
	}
}

// put begins to write a chunk, whose length stands before it, when the one before has been written. It is not to be changed until the
// next put, or flush, has returned.
func (p *pump) put(chunk []byte) error {
	framed := p.compress(chunk)
	if err := p.flush(); err != nil {
		return err
	}
	p.wire += int64(len(framed))
	p.busy = true
	p.todo <- framed
	return nil
}

// flush waits until all is written.
func (p *pump) flush() error {
	if p.busy {
		r := <-p.done
		p.busy, p.err = false, r.err
		if p.chooser != nil && r.err == nil {
			p.chooser.Wrote(r.n, r.took)
		}
	}
	return p.err
}

// close ends the pump. It waits for a write: whoever gave the writer sees to it that this ends.
func (p *pump) close() {
	_ = p.flush()
	close(p.todo)
	<-p.done
	release(&p.spare[0])
	release(&p.spare[1])
}

// compress returns what goes over the wire for a chunk.
func (p *pump) compress(chunk []byte) []byte {
	raw := chunk[frameHead:]
	if p.chooser == nil || !p.chooser.Looks(len(raw)) {
		return chunk
	}
	if p.spare[0] == nil {
		p.spare[0] = frames.Get().(*frame)
	}
	b, ok := p.chooser.Chunk(p.spare[0][:compressedHead], raw)
	if !ok {
		return chunk
	}
	p.spare[0], p.spare[1] = p.spare[1], p.spare[0]
	return setCompressedHead(b, len(raw))
}
