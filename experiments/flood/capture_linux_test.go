package flood

import (
	"bytes"
	"testing"

	"github.com/fnwire/fnwire/internal/hostile"
)

func packet(port uint16, data string) []byte {
	b := append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17}, make([]byte, 10)...)
	b = append(b, 0, 9, byte(port>>8), byte(port), 0, 0, 0, 0)
	return append(b, data...)
}

func TestPayload(t *testing.T) {
	fragment := packet(7, "x")
	fragment[7] = 1
	tcp := packet(7, "x")
	tcp[9] = 6
	for name, b := range map[string][]byte{
		"another port": packet(8, "x"), "fragment": fragment, "TCP": tcp, "cut off": packet(7, "")[:25], "nothing": nil,
	} {
		if got := payload(b, 7); len(got) > 0 {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := payload(packet(7, "hello"), 7); !bytes.Equal(got, []byte("hello")) {
		t.Errorf("got %q", got)
	}
}

func FuzzPayload(f *testing.F) {
	for _, b := range hostile.Of(packet(7, "hello")) {
		f.Add(b, uint16(7))
	}
	f.Add([]byte{0x4f, 0, 0}, uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, port uint16) {
		if p := payload(b, port); len(p) > len(b) {
			t.Errorf("%d bytes of %d", len(p), len(b))
		}
	})
}
