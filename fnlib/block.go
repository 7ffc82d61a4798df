package fnlib

import (
	"sync"
	"sync/atomic"
)

// block is one of a state in memory, which several may read at once. Each that does holds it, and the last one that lets it go gives its memory back.
type block struct {
	data []byte
	refs atomic.Int32
}

// wholeBlocks are those of blockSize bytes: most are.
var wholeBlocks = sync.Pool{New: func() any { return &block{data: make([]byte, blockSize)} }}

// newBlock returns room for a block, held once.
func newBlock(size int) *block {
	b := &block{}
	if size == blockSize {
		b = wholeBlocks.Get().(*block)
	} else {
		b.data = make([]byte, size)
	}
	b.refs.Store(1)
	return b
}

// hold has the block stay until it was released once more.
func (b *block) hold() *block {
	b.refs.Add(1)
	return b
}

func (b *block) release() {
	if b.refs.Add(-1) == 0 && len(b.data) == blockSize {
		wholeBlocks.Put(b)
	}
}
