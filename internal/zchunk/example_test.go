package zchunk_test

import (
	"bytes"
	"fmt"
	"time"

	"github.com/fnwire/fnwire/internal/zchunk"
)

// A chunk goes over a link of 10 Mbit/s.
func Example() {
	var codec zchunk.Codec
	chooser := zchunk.NewChooser(&codec, 10e6/8)
	raw := bytes.Repeat([]byte("state of a function, "), 1000)

	frame, packed := chooser.Chunk(make([]byte, 0, zchunk.MaxFrame), raw)
	fmt.Println(packed, len(frame) < len(raw)/10)
	chooser.Wrote(len(frame), time.Millisecond)

	got, err := codec.Decode(make([]byte, 0, zchunk.MaxRaw), frame, len(raw))
	fmt.Println(bytes.Equal(got, raw), err)
	// Output:
	// true true
	// true <nil>
}
