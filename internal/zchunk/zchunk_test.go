package zchunk

import (
	"bytes"
	"encoding/hex"
	"errors"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Golden bytes: an RFC 8878 frame with a content size, one segment and no checksum. The encoder is free to choose its blocks.
func TestGolden(t *testing.T) {
	var c Codec
	raw := bytes.Repeat([]byte("0123456789abcdef"), 512)
	const head = "28b52ffd" + "60" + "001f" // magic; descriptor; size, less 256
	golden, err := hex.DecodeString(head + "d50000" + "0401303132333435363738396162636465660154100430da7f02")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Decode(make([]byte, 0, len(raw)), golden, len(raw)); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if frame, _ := c.encode(nil, raw); !bytes.HasPrefix(frame, golden[:7]) {
		t.Errorf("frame %x, want %s...", frame, head)
	}
}

func TestDecodeRefuses(t *testing.T) {
	var c Codec
	zeros := make([]byte, MaxRaw)
	frame, _ := c.encode(nil, zeros)
	little, _ := c.encode(nil, zeros[:1000])
	wide, err := zstd.NewWriter(nil, zstd.WithWindowSize(8<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	bomb := wide.EncodeAll(make([]byte, 64<<20), nil)
	var stream bytes.Buffer // of unknown size
	wide.Reset(&stream)
	for range 64 {
		if _, err := wide.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := wide.Close(); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]struct {
		frame []byte
		size  int
	}{
		"more than it says":       {frame, MaxRaw - 1},
		"less than it says":       {little, 1001},
		"a size beyond the limit": {frame, MaxRaw + 1},
		"nothing":                 {nil, 1},
		"no frame":                {[]byte("no frame at all"), 15},
		"a bomb":                  {bomb, MaxRaw},
		"a bomb of unknown size":  {stream.Bytes(), MaxRaw},
		"two frames":              {append(bytes.Clone(frame), frame...), MaxRaw},
		"cut short":               {frame[:len(frame)-1], MaxRaw},
		"something after it":      {append(bytes.Clone(frame), 1), MaxRaw},
		"a frame that is skipped": {[]byte{0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7}, 1},
		"a dictionary":            {[]byte{0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 1, 0x09, 0, 0, 'x'}, 1},
		"no size":                 {frame, 0},
	} {
		before := [8]byte{1, 2, 3}
		dst := append(make([]byte, 0, 8+MaxRaw+1), before[:]...)
		out, err := c.Decode(dst, b.frame, b.size)
		if !errors.Is(err, ErrCorrupt) || !bytes.Equal(out, before[:]) {
			t.Errorf("%s: %d bytes, %v", name, len(out), err)
		}
	}
}

// Decoding allocates nothing but within what it was given, whatever comes.
func FuzzDecode(f *testing.F) {
	var c Codec
	for _, raw := range [][]byte{{1}, make([]byte, 3<<10), bytes.Repeat([]byte("state "), 500), randomBytes(200)} {
		frame, _ := c.encode(nil, raw)
		f.Add(frame, len(raw))
		f.Add(frame, len(raw)-1)
	}
	f.Fuzz(func(t *testing.T, frame []byte, size int) {
		room := make([]byte, 8+MaxRaw+8)
		got, err := c.Decode(room[:8:8+MaxRaw], frame, size)
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		if err == nil && (len(got) != 8+size || &got[0] != &room[0]) {
			t.Errorf("%d bytes, want %d in the place that was given", len(got)-8, size)
		}
		if end := room[8+MaxRaw:]; !bytes.Equal(end, make([]byte, 8)) {
			t.Errorf("wrote behind what it was given: %x", end)
		}
	})
}

// FuzzChunk holds that what is compressed comes back.
func FuzzChunk(f *testing.F) {
	var c Codec
	f.Add([]byte("state"), 1000)
	f.Add(randomBytes(100), 2)
	f.Fuzz(func(t *testing.T, pattern []byte, times int) {
		raw := bytes.Repeat(pattern, min(max(times, 0), MaxRaw/max(len(pattern), 1)))
		frame, _ := c.encode(make([]byte, 0, MaxFrame), raw)
		if len(frame) > MaxFrame {
			t.Errorf("%d bytes became %d", len(raw), len(frame))
		}
		got, err := c.Decode(make([]byte, 0, len(raw)), frame, len(raw))
		if len(raw) > 0 && (err != nil || !bytes.Equal(got, raw)) {
			t.Errorf("%d bytes: %d, %v", len(raw), len(got), err)
		}
	})
}

// All goroutines of a process share a Codec, and what it takes is bounded.
func TestCodecIsShared(t *testing.T) {
	var c Codec
	text := goSource(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			dst, plain := make([]byte, 0, MaxFrame), make([]byte, 0, MaxRaw)
			for at := i * MaxRaw; at+MaxRaw <= len(text); at += 4 * MaxRaw {
				raw := text[at : at+MaxRaw]
				frame, took := c.encode(dst, raw)
				got, err := c.Decode(plain, frame, len(raw))
				if err != nil || !bytes.Equal(got, raw) || took <= 0 {
					t.Errorf("%d bytes, %v, in %v", len(got), err, took)
				}
			}
		})
	}
	wg.Wait()
}

// Neither compressing nor decompressing allocates once it has begun.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Log("not measured: under the race detector sync.Pool drops buffers on purpose; the run without it measures")
		return
	}
	var c Codec
	raw, dst, plain := goSource(t)[:MaxRaw], make([]byte, 0, MaxFrame), make([]byte, 0, MaxRaw)
	n := testing.AllocsPerRun(20, func() {
		frame, _ := c.encode(dst, raw)
		if _, err := c.Decode(plain, frame, len(raw)); err != nil {
			t.Fatal(err)
		}
	})
	if n > 1 {
		t.Errorf("%v allocations a chunk", n)
	}
}
