package transport

import (
	"bytes"
	"net"
	"testing"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/ident"
)

func TestVirtualAddr(t *testing.T) {
	s := ident.Short{1, 2, 3, 4, 5, 6, 7, 8}
	a := virtualAddr(s, 2)
	if got := a.String(); got != "[fd66:6e77:6972:6500:102:304:506:708]:2" {
		t.Errorf("address %s", got)
	}
	got, gen, ok := parseVirtual(a)
	if !ok || got != s || gen != 2 {
		t.Errorf("parsed %v, %d, %v", got, gen, ok)
	}
	for _, bad := range []*net.UDPAddr{
		{IP: net.IPv4(10, 0, 0, 1), Port: 2},
		{IP: net.ParseIP("fd00::1"), Port: 2},
		{},
	} {
		if _, _, ok := parseVirtual(bad); ok {
			t.Errorf("%v passed for virtual", bad)
		}
	}
}

// TestClassOf builds the headers of RFC 9000, 17.2 and 17.3 by hand.
func TestClassOf(t *testing.T) {
	for class := range classes {
		id, err := classIDs{class}.GenerateConnectionID()
		if err != nil {
			t.Fatal(err)
		}
		random := bytes.Repeat([]byte{0xff}, 11) // a client's first destination ID says nothing
		long := append([]byte{0xc0, 0, 0, 0, 1, byte(len(random))}, random...)
		long = append(long, connIDLen)
		long = append(long, id.Bytes()...)
		short := append([]byte{0x40}, id.Bytes()...)
		short = append(short, 0xff)
		for name, b := range map[string][]byte{"long": long, "short": short} {
			got, ok := classOf(b)
			if !ok || got != class {
				t.Errorf("%s header of %v: got %v, %v", name, class, got, ok)
			}
		}
	}
}

func FuzzClassOf(f *testing.F) {
	for _, b := range hostile.Of(
		[]byte{0x40, 1, 2, 3, 4, 5, 6, 7, 8, 9},
		[]byte{0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1, 2, 3, 4, 5, 6, 7, 8},
		[]byte{0xc0, 0, 0, 0, 1, 255, 1},
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok := classOf(b); ok && c >= classes {
			t.Errorf("class %d", c)
		}
	})
}
