package relay_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/relay"
)

func runsOf(message []byte) (runs []string, ok bool) {
	ok = relay.Runs(bytes.Clone(message), func(b []byte, seg int) { runs = append(runs, fmt.Sprintf("%s/%d", b, seg)) })
	return runs, ok
}

func TestGoldenMessage(t *testing.T) {
	var m []byte
	for _, f := range []string{"abcd", "efgh", "ij", "klm", "nopqr"} {
		m = relay.AppendToMessage(m, []byte(f))
	}
	if got := hex.EncodeToString(m); got != "000461626364"+"000465666768"+"0002696a"+"00036b6c6d"+"00056e6f707172" {
		t.Errorf("got %s", got)
	}
	runs, ok := runsOf(m)
	if want := "[abcdefghij/4 klm/3 nopqr/5]"; !ok || fmt.Sprint(runs) != want {
		t.Errorf("got %v, %v, want %s", runs, ok, want)
	}
	if runs, ok := runsOf(m[:len(m)-1]); ok || fmt.Sprint(runs) != "[abcdefghij/4 klm/3]" {
		t.Errorf("cut short: %v, %v", runs, ok)
	}
	for _, bad := range [][]byte{{0}, {0, 0}, {0, 2, 'a'}, relay.AppendToMessage(nil, make([]byte, relay.MaxFrame+1))} {
		if runs, ok := runsOf(bad); ok || len(runs) > 0 {
			t.Errorf("%.10x: took %v", bad, runs)
		}
	}
}

// FuzzRuns checks that what is taken apart is all there, in order, and makes the same message again.
func FuzzRuns(f *testing.F) {
	for _, b := range hostile.Of(
		[]byte("\x00\x01a\x00\x01b\x00\x03cde\x00\x02fg"),
		[]byte("\x00\x02aa\x00\x01b\x00\x01c"),
		[]byte{5, 193, 1},
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		var again []byte
		ok := relay.Runs(bytes.Clone(message), func(b []byte, seg int) {
			if seg <= 0 || seg > relay.MaxFrame || len(b) == 0 {
				t.Fatalf("%d bytes, %d each", len(b), seg)
			}
			for ; len(b) > 0; b = b[min(seg, len(b)):] {
				again = relay.AppendToMessage(again, b[:min(seg, len(b))])
			}
		})
		if !bytes.HasPrefix(message, again) || ok != (len(again) == len(message)) {
			t.Errorf("%x became %x (%v)", message, again, ok)
		}
	})
}

func TestOutbox(t *testing.T) {
	var o relay.Outbox
	frame := bytes.Repeat([]byte("f"), 1000)
	sent := 0
	for range 1000 {
		sent += 1 - o.Put(frame, 0)
	}
	if most := relay.QueueBytes / 1002; sent > most || sent < most-4 {
		t.Errorf("holds %d frames of 1000 bytes, want about %d", sent, most)
	}
	out := 0
	for range relay.QueueBytes / relay.MaxMessage {
		if !relay.Runs(o.Next(nil), func(b []byte, _ int) { out += len(b) / 1000 }) {
			t.Fatal("malformed")
		}
	}
	if out != sent {
		t.Errorf("%d of %d frames came out", out, sent)
	}
	// A run is cut into frames; the end is told when all of it went out.
	if n := o.Put([]byte("aaabbbc"), 3); n > 0 {
		t.Errorf("dropped %d", n)
	}
	o.End()
	if n := o.Put(frame, 0); n != 1 {
		t.Error("takes frames after the end")
	}
	if runs, ok := runsOf(o.Next(nil)); !ok || fmt.Sprint(runs) != "[aaabbbc/3]" {
		t.Errorf("got %v", runs)
	}
	if b := o.Next(nil); b != nil {
		t.Errorf("got %x after the end", b)
	}
	if n := o.Put(make([]byte, relay.MaxFrame+1), 0); n != 1 {
		t.Error("took a frame that is too long")
	}
}
