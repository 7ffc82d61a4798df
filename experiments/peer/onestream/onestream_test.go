package onestream_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/peer/onestream"
)

// duplex is one end of a stream in memory.
type duplex struct {
	*io.PipeReader
	out *io.PipeWriter
}

func (d duplex) Write(b []byte) (int, error) { return d.out.Write(b) }
func (d duplex) CloseWrite() error           { return d.out.Close() }

func pipe() (a, b duplex) {
	ar, bw := io.Pipe()
	br, aw := io.Pipe()
	return duplex{ar, aw}, duplex{br, bw}
}

func Example() {
	a, b := pipe()
	sent := make(chan error, 1)
	go func() {
		_, err := onestream.Send(a, strings.NewReader("123456789"), 9, onestream.CRC32C)
		sent <- err
	}()
	got, err := onestream.Receive(b, onestream.CRC32C)
	fmt.Printf("%d %x %v %v\n", got.Bytes, got.Sum, err, <-sent)
	// Output: 9 e3069283 <nil> <nil>
}

func TestStates(t *testing.T) {
	for _, check := range []onestream.Check{onestream.SHA256, onestream.CRC32C} {
		for _, size := range []int{0, 1, 1 << 20} {
			a, b := pipe()
			state := bytes.Repeat([]byte("abc"), size)[:size]
			sent := make(chan []byte, 1)
			go func() {
				sum, err := onestream.Send(a, bytes.NewReader(state), int64(size), check)
				if err != nil {
					t.Error(err)
				}
				sent <- sum
			}()
			got, err := onestream.Receive(b, check)
			if err != nil || got.Bytes != int64(size) || got.First.IsZero() != (size == 0) || got.Last.IsZero() {
				t.Errorf("%s, %d bytes: %+v, %v", check, size, got, err)
			}
			if sum := <-sent; !bytes.Equal(sum, got.Sum) {
				t.Errorf("%s, %d bytes: sums %x and %x", check, size, sum, got.Sum)
			}
		}
	}
}

func TestDamage(t *testing.T) {
	for name, wire := range map[string]string{
		"checksum":   "\x00\x00\x00\x00\x00\x00\x00\x03abcxxxx",
		"EOF":        "\x00\x00\x00\x00\x00\x00\x00\x03ab",
		"state of":   "\xff\x00\x00\x00\x00\x00\x00\x00",
		"unexpected": "\x00\x00",
	} {
		a, b := pipe()
		go func() {
			_, _ = io.WriteString(a, wire)
			_ = a.CloseWrite()
		}()
		if _, err := onestream.Receive(b, onestream.CRC32C); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, b := pipe()
	go func() {
		_, _ = io.ReadFull(b, make([]byte, 8+3+4))
		_, _ = io.WriteString(b, "xxxx")
	}()
	if _, err := onestream.Send(a, strings.NewReader("abc"), 3, onestream.CRC32C); err == nil || !strings.Contains(err.Error(), "another checksum") {
		t.Errorf("a wrong receipt: %v", err)
	}
	if _, err := onestream.Send(a, strings.NewReader("abc"), 3, "md5"); err == nil {
		t.Error("an unknown check is taken")
	}
}
