// Package zchunk compresses the chunks of a state, where that makes the transfer faster, and decompresses them within bounds. It
// never touches a network, and starts no goroutine.
//
// What it makes and takes is a Zstandard frame (RFC 8878) for each chunk, without checksum or dictionary, with a window of at most MaxRaw: a chunk
// stands for itself, so that a transfer can go on at any. The level is the fastest: the next one is a third slower and saves 2 %
// more of text, and nothing of JSON and of numbers (Chooser's benchmark has the data).
package zchunk

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Sizes in bytes.
const (
	MaxRaw   = 256 << 10   // of a chunk before it is compressed
	MaxFrame = MaxRaw + 64 // of any frame that a Chooser makes, also of one that it then does not use
)

// ErrCorrupt is of what should be a compressed chunk of a given size, and is none.
var ErrCorrupt = errors.New("zchunk: not a compressed chunk")

const (
	maxAtOnce   = 2 // chunks compressed at the same time; also a bound on memory, some 0.8 MiB each. The same for decompressing
	warmUpBytes = MaxRaw
)

// Codec compresses and decompresses. All transfers of a process, or of a node, should share one: it bounds their memory and
// what they take of the machine. The zero value is ready, and takes no memory before it is used. It is for any number of goroutines.
type Codec struct {
	encOnce, decOnce sync.Once
	enc              *zstd.Encoder
	dec              *zstd.Decoder
}

// encode appends a frame to dst and tells how long that took, waiting for others included.
func (c *Codec) encode(dst, raw []byte) (frame []byte, took time.Duration) {
	c.encOnce.Do(c.startEncoder)
	began := time.Now()
	frame = c.enc.EncodeAll(raw, dst)
	return frame, time.Since(began)
}

// startEncoder makes the encoders and has each allocate its tables, lest that be taken for the cost of the first chunks.
func (c *Codec) startEncoder() {
	n := min(maxAtOnce, runtime.GOMAXPROCS(0))
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(n), zstd.WithWindowSize(MaxRaw),
		zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		panic(err) // these options are fine
	}
	zeros, dst := make([]byte, warmUpBytes), make([]byte, 0, 1<<10)
	for range n {
		enc.EncodeAll(zeros, dst)
	}
	c.enc = enc
}

// Decode decompresses a frame that stands for exactly size bytes, appending them to dst, of which it needs that much capacity. It takes no
// more memory whatever the frame is. Errors match ErrCorrupt.
func (c *Codec) Decode(dst, frame []byte, size int) ([]byte, error) {
	if size <= 0 || size > MaxRaw || size > cap(dst)-len(dst) {
		return dst, fmt.Errorf("%w: of %d bytes, at most %d and %d can be taken", ErrCorrupt, size, MaxRaw, cap(dst)-len(dst))
	}
	c.decOnce.Do(c.startDecoder)
	out, err := c.dec.DecodeAll(frame, dst[:len(dst):len(dst)+size])
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return dst, fmt.Errorf("%w: %d bytes that decompress to more than %d", ErrCorrupt, len(frame), size)
	case err != nil:
		return dst, fmt.Errorf("%w: %w", ErrCorrupt, err)
	case len(out)-len(dst) != size:
		return dst, fmt.Errorf("%w: it decompresses to %d bytes, not %d", ErrCorrupt, len(out)-len(dst), size)
	}
	return out, nil
}

func (c *Codec) startDecoder() {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(min(maxAtOnce, runtime.GOMAXPROCS(0))), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(MaxRaw), zstd.WithDecoderMaxMemory(MaxRaw), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // these options are fine
	}
	c.dec = dec
}
