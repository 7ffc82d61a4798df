package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/iotest"

	"github.com/fnwire/fnwire/internal/hostile"
)

func Example() {
	var key [32]byte
	var stored bytes.Buffer
	w, err := NewWriter(&stored, key, "in/reduce-0/7f")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = io.WriteString(w, "state")
	_ = w.Close()
	sealed := stored.Bytes()
	plain, err := io.ReadAll(NewReader(bytes.NewReader(sealed), key, "in/reduce-0/7f"))
	fmt.Println(string(plain), err)
	_, err = io.ReadAll(NewReader(bytes.NewReader(sealed), key, "in/reduce-1/7f"))
	fmt.Println(err)
	// Output:
	// state <nil>
	// seal: not what was sealed: segment 1
}

func sealed(t testing.TB, plain []byte, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, [32]byte{1}, name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, iotest.HalfReader(bytes.NewReader(plain))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func text(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

var sizes = []int{0, 1, segment - 1, segment, segment + 1, 2 * segment, 3*segment + 7}

// A text is read from any byte on, and what was changed from there on is noticed.
func TestReadFrom(t *testing.T) {
	from := func(sealed []byte, at int64) ([]byte, error) {
		r, err := NewReaderFrom(sealed[:HeadSize], bytes.NewReader(sealed[Offset(at):]), [32]byte{1}, "x", at)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	}
	plain := text(3*segment + 7)
	s := sealed(t, plain, "x")
	for _, at := range []int64{0, 1, segment - 1, segment, segment + 1, 3 * segment, 3*segment + 6} {
		if got, err := from(s, at); err != nil || !bytes.Equal(got, plain[at:]) {
			t.Errorf("from byte %d: %d bytes, %v", at, len(got), err)
		}
		for _, bad := range [][]byte{s[:len(s)-1], append(bytes.Clone(s), 0), append([]byte("fnw2"), s[4:]...)} {
			if _, err := from(bad, at); !errors.Is(err, ErrForged) {
				t.Errorf("from byte %d of a changed text: %v", at, err)
			}
		}
	}
	if _, err := NewReaderFrom(s[:HeadSize], bytes.NewReader(s[Offset(segment):]), [32]byte{1}, "x", 2*segment+1); !errors.Is(err, ErrForged) {
		t.Errorf("a segment in another's place: %v", err)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, n := range sizes {
		plain := text(n)
		s := sealed(t, plain, "x")
		if int64(len(s)) != Size(int64(n)) {
			t.Errorf("%d bytes: sealed in %d, want %d", n, len(s), Size(int64(n)))
		}
		for _, r := range []io.Reader{bytes.NewReader(s), iotest.DataErrReader(bytes.NewReader(s))} {
			got, err := io.ReadAll(NewReader(r, [32]byte{1}, "x"))
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes: got %d, %v", n, len(got), err)
			}
		}
	}
}

// What is sealed in memory is what a writer seals, and is opened, or refused, as a reader does.
func TestInMemory(t *testing.T) {
	key := [32]byte{1}
	for _, size := range sizes {
		plain := text(size)
		b, err := Bytes(key, "name", plain)
		if err != nil {
			t.Fatal(err)
		}
		for _, sealed := range [][]byte{b, sealed(t, plain, "name")} {
			if got, err := Open(key, "name", sealed); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes: %d, %v", size, len(got), err)
			}
			if _, err := Open(key, "other", sealed); !errors.Is(err, ErrForged) {
				t.Errorf("%d bytes under another name: %v", size, err)
			}
		}
	}
}

// Whatever is done to a sealed text, its reader gives a part of the plain text at most, and fails.
func TestForged(t *testing.T) {
	for _, n := range sizes {
		plain := text(n)
		s := sealed(t, plain, "x")
		other := sealed(t, plain, "x")
		cases := map[string][]byte{
			"nothing": {}, "a head alone": s[:headSize], "cut": s[:len(s)-1], "longer": append(bytes.Clone(s), 0),
			"another's head": append(bytes.Clone(other[:headSize]), s[headSize:]...),
			"magic":          append([]byte("fnw2"), s[4:]...),
		}
		for _, at := range []int{4, headSize, len(s) - 1, len(s) / 2} {
			b := bytes.Clone(s)
			b[min(at, len(b)-1)] ^= 1
			cases[fmt.Sprint("bit at ", at)] = b
		}
		if n > segment {
			full := headSize + segment + tagSize
			cases["cut after a segment"] = s[:full]
			cases["repeated"] = append(bytes.Clone(s[:full]), s[headSize:]...)
			cases["first missing"] = append(bytes.Clone(s[:headSize]), s[full:]...)
		}
		for name, b := range cases {
			got, err := io.ReadAll(NewReader(bytes.NewReader(b), [32]byte{1}, "x"))
			if !errors.Is(err, ErrForged) || !bytes.HasPrefix(plain, got) {
				t.Errorf("%d bytes, %s: %d bytes, %v", n, name, len(got), err)
			}
		}
		for name, r := range map[string]io.Reader{
			"key": NewReader(bytes.NewReader(s), [32]byte{2}, "x"), "name": NewReader(bytes.NewReader(s), [32]byte{1}, "y"),
		} {
			if _, err := io.ReadAll(r); !errors.Is(err, ErrForged) {
				t.Errorf("%d bytes, another %s: %v", n, name, err)
			}
		}
	}
}

// A reader that fails is no end of the text, and a writer that fails is told of.
func TestErrorsPass(t *testing.T) {
	broken := errors.New("disk on fire")
	s := sealed(t, text(2*segment), "x")
	for _, n := range []int{0, headSize, headSize + 10, headSize + segment + tagSize, len(s) - 1} {
		r := io.MultiReader(bytes.NewReader(s[:n]), iotest.ErrReader(broken))
		if _, err := io.ReadAll(NewReader(r, [32]byte{1}, "x")); !errors.Is(err, broken) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	w, err := NewWriter(&full{room: headSize + 10, err: broken}, [32]byte{1}, "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(text(3 * segment)); !errors.Is(err, broken) {
		t.Errorf("write: %v", err)
	}
	if err := w.Close(); !errors.Is(err, broken) {
		t.Errorf("close: %v", err)
	}
}

type full struct {
	room int
	err  error
}

func (f *full) Write(b []byte) (int, error) {
	if f.room -= len(b); f.room < 0 {
		return 0, f.err
	}
	return len(b), nil
}

func TestGolden(t *testing.T) {
	var b bytes.Buffer
	head := append([]byte(magic), make([]byte, saltSize)...)
	w, err := newWriter(&b, [32]byte{1}, "x", head)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, "state")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	const want = "102883a5e3db8429c6d5f312403b30667d2493021f"
	if got := hex.EncodeToString(b.Bytes()[headSize:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAllocations(t *testing.T) {
	s := sealed(t, text(8*segment), "x")
	buf := make([]byte, segment)
	few := testing.AllocsPerRun(10, func() {
		r := NewReader(bytes.NewReader(s), [32]byte{1}, "x")
		for {
			if _, err := r.Read(buf); err != nil {
				return
			}
		}
	})
	if few > 40 {
		t.Errorf("%v allocations for 8 segments", few)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(sealed(f, text(segment+1), "x"))
	for _, b := range hostile.Of(sealed(f, []byte("state"), "x")) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := io.ReadAll(NewReader(bytes.NewReader(b), [32]byte{3}, "x"))
		if err == nil || len(got) > 0 {
			t.Errorf("%d bytes of what nobody sealed, %v", len(got), err)
		}
	})
}

// A reader that fails with what io.ReadFull calls a short text has failed, and nothing is forged.
func TestReaderFails(t *testing.T) {
	whole := sealed(t, text(3*segment), "x")
	for _, n := range []int{0, 1, HeadSize, HeadSize + 1, HeadSize + segment + tagSize, len(whole) - 1} {
		r := io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(io.ErrUnexpectedEOF))
		if _, err := io.ReadAll(NewReader(r, [32]byte{1}, "x")); err != io.ErrUnexpectedEOF {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}
