package usernat

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/natsim"
)

var (
	start  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	inner  = netip.MustParseAddrPort("10.2.0.2:4000")
	second = netip.MustParseAddrPort("10.2.0.3:4001")
	public = netip.MustParseAddr("198.51.100.3")
	far    = netip.MustParseAddrPort("198.51.100.2:53")
	stray  = netip.MustParseAddrPort("198.51.100.9:9")
)

func newNAT(k natsim.Kind) *NAT {
	return New(Config{Kind: k, Public: public, Inside: netip.MustParsePrefix("10.2.0.0/24"), Rand: rand.New(rand.NewPCG(1, 2))})
}

// ipPacket makes an IPv4 packet; the transport's checksum is the caller's business.
func ipPacket(protocol byte, src, dst netip.Addr, payload []byte) []byte {
	p := append(make([]byte, ipHeaderLeast), payload...)
	p[0] = 0x45
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	p[8], p[ipProtocol] = 64, protocol
	copy(p[ipSource:], src.AsSlice())
	copy(p[ipDestination:], dst.AsSlice())
	binary.BigEndian.PutUint16(p[ipChecksum:], ^sum(p[:ipHeaderLeast]))
	return p
}

func udpPacket(src, dst netip.AddrPort, data string) []byte {
	u := append(make([]byte, udpHeader), data...)
	binary.BigEndian.PutUint16(u[udpSource:], src.Port())
	binary.BigEndian.PutUint16(u[udpDestination:], dst.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
	p := ipPacket(protocolUDP, src.Addr(), dst.Addr(), u)
	binary.BigEndian.PutUint16(p[ipHeaderLeast+udpChecksum:], ^pseudoSum(p))
	return p
}

// pseudoSum is the sum that a UDP checksum completes to 0xffff (RFC 768).
func pseudoSum(p []byte) uint16 {
	u := p[ipHeaderLeast:]
	b := append(bytes.Clone(p[ipSource:ipHeaderLeast]), 0, protocolUDP, byte(len(u)>>8), byte(len(u)))
	return sum(append(b, u...))
}

func endpoints(p []byte) (src, dst netip.AddrPort) {
	return netip.AddrPortFrom(addr(p, ipSource), port(p[ipHeaderLeast:], udpSource)),
		netip.AddrPortFrom(addr(p, ipDestination), port(p[ipHeaderLeast:], udpDestination))
}

func intact(p []byte) bool {
	return sum(p[:ipHeaderLeast]) == 0xffff && (p[ipProtocol] != protocolUDP || pseudoSum(p) == 0xffff)
}

// A host asks a server behind a NAT whose ports go up by one.
func Example() {
	nat := newNAT(natsim.Kind{Mapping: natsim.AddressPortDependent, Filtering: natsim.AddressPortDependent, Step: 1})
	show := func(p []byte) {
		ok := nat.Translate(start, p)
		src, dst := endpoints(p)
		fmt.Println(src, "->", dst, ok)
	}
	ask := udpPacket(inner, far, "ask")
	show(ask)
	mapped, _ := endpoints(ask)
	show(udpPacket(far, mapped, "answer"))
	show(udpPacket(stray, mapped, "guess"))
	show(udpPacket(inner, stray, "ask again"))
	// Output:
	// 198.51.100.3:50658 -> 198.51.100.2:53 true
	// 198.51.100.2:53 -> 10.2.0.2:4000 true
	// 198.51.100.9:9 -> 198.51.100.3:50658 false
	// 198.51.100.3:50659 -> 198.51.100.9:9 true
}

// What is translated has the right checksums, whatever the bytes; a packet without one still has none.
func TestChecksums(t *testing.T) {
	nat := newNAT(natsim.Kind{})
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		data := make([]byte, rng.IntN(50))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		from := netip.AddrPortFrom(inner.Addr(), uint16(rng.Uint32()))
		p := udpPacket(from, far, string(data))
		if !intact(p) || !nat.Translate(start, p) || !intact(p) {
			t.Fatalf("out: %x", p)
		}
		mapped, _ := endpoints(p)
		p = udpPacket(far, mapped, string(data))
		if !nat.Translate(start, p) || !intact(p) {
			t.Fatalf("in: %x", p)
		}
		if _, dst := endpoints(p); dst != from {
			t.Fatalf("in to %v, want %v", dst, from)
		}
	}
	p := udpPacket(inner, far, "none")
	binary.BigEndian.PutUint16(p[ipHeaderLeast+udpChecksum:], 0)
	if nat.Translate(start, p); port(p[ipHeaderLeast:], udpChecksum) != 0 {
		t.Error("a checksum where there was none")
	}
}

// RFC 1624 gives the case that the older equation gets wrong.
func TestUpdate(t *testing.T) {
	check := []byte{0xdd, 0x2f}
	if update(check, []byte{0x55, 0x55}, []byte{0x32, 0x85}); hex.EncodeToString(check) != "0000" {
		t.Errorf("%x, want 0000", check)
	}
	// The sum of RFC 1071, section 3.
	if got := sum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != 0xddf2 {
		t.Errorf("%#x, want 0xddf2", got)
	}
}

func TestHairpin(t *testing.T) {
	for _, on := range []bool{false, true} {
		nat := newNAT(natsim.Kind{Preserve: true, Hairpin: on})
		nat.Translate(start, udpPacket(second, far, "open"))
		p := udpPacket(inner, netip.AddrPortFrom(public, second.Port()), "hairpin")
		if got := nat.Translate(start, p); got != on {
			t.Errorf("hairpin %v: passes %v", on, got)
		}
		if src, dst := endpoints(p); on && (src != netip.AddrPortFrom(public, inner.Port()) || dst != second || !intact(p)) {
			t.Errorf("%v -> %v", src, dst)
		}
	}
}

// icmpAbout makes an error about a packet, with only the first 8 bytes of its payload, as RFC 792 has it.
func icmpAbout(kind byte, from netip.Addr, p []byte) []byte {
	b := append([]byte{kind, 4, 0, 0, 0, 0, 5, 0}, p[:ipHeaderLeast+8]...)
	binary.BigEndian.PutUint16(b[2:], ^sum(b))
	return ipPacket(protocolICMP, from, public, b)
}

func TestICMP(t *testing.T) {
	nat := newNAT(natsim.Kind{Filtering: natsim.AddressPortDependent, PerMapping: true})
	out := udpPacket(inner, far, "too long")
	nat.Translate(start, out)
	router := netip.MustParseAddr("100.64.0.1")
	e := icmpAbout(3, router, out)
	if !nat.Translate(start, e) {
		t.Fatal("dropped")
	}
	about := e[ipHeaderLeast+icmpHeader:]
	src, dst := endpoints(about)
	if src != inner || dst != far || addr(e, ipDestination) != inner.Addr() || addr(e, ipSource) != router {
		t.Errorf("about %v -> %v, to %v", src, dst, addr(e, ipDestination))
	}
	if !intact(e) || sum(e[ipHeaderLeast:]) != 0xffff || sum(about[:ipHeaderLeast]) != 0xffff {
		t.Error("checksums")
	}
	if port(about[ipHeaderLeast:], udpChecksum) != port(udpPacket(inner, far, "too long")[ipHeaderLeast:], udpChecksum) {
		t.Error("the packet that the error is about is not as it was sent")
	}
	for name, bad := range map[string][]byte{
		"echo":          icmpAbout(8, router, out),
		"never sent":    icmpAbout(3, router, udpPacket(netip.AddrPortFrom(public, 7), far, "?")),
		"other far end": icmpAbout(3, router, udpPacket(netip.AddrPortFrom(public, port(out[ipHeaderLeast:], 0)), stray, "?")),
		"not ours":      icmpAbout(3, router, udpPacket(stray, far, "?")),
	} {
		if nat.Translate(start, bad) {
			t.Errorf("%s passes", name)
		}
	}
}

func TestDropped(t *testing.T) {
	nat := newNAT(natsim.Kind{})
	fragment := udpPacket(inner, far, "part")
	fragment[ipFragment] = 0x20
	tcp := udpPacket(inner, far, "tcp")
	tcp[ipProtocol] = 6
	six := udpPacket(inner, far, "six")
	six[0] = 0x65
	for name, p := range map[string][]byte{
		"fragment": fragment, "TCP": tcp, "IPv6": six, "nothing": nil,
		"passing through": udpPacket(stray, far, ""), "inside": udpPacket(inner, netip.AddrPortFrom(public, 1), ""),
		"cut off": udpPacket(inner, far, "")[:ipHeaderLeast+7], "uninvited": udpPacket(far, netip.AddrPortFrom(public, 1), ""),
	} {
		if nat.Translate(start, p) {
			t.Errorf("%s passes", name)
		}
	}
	nat = newNAT(natsim.Kind{Blocked: true})
	if nat.Translate(start, udpPacket(inner, far, "")) {
		t.Error("a blocked NAT lets out")
	}
}

func TestForget(t *testing.T) {
	nat := newNAT(natsim.Kind{})
	p := udpPacket(inner, far, "")
	nat.Translate(start, p)
	mapped, _ := endpoints(p)
	nat.Forget()
	if nat.Translate(start, udpPacket(far, mapped, "")) {
		t.Error("a mapping outlived the restart")
	}
}

// No bytes make it read beyond them, or send on a packet that is not what it seems.
func FuzzTranslate(f *testing.F) {
	out := udpPacket(inner, far, "hello")
	for _, b := range hostile.Of(
		out,
		udpPacket(far, netip.AddrPortFrom(public, 4000), "hello"),
		udpPacket(inner, netip.AddrPortFrom(public, 4000), "hairpin"),
		icmpAbout(3, far.Addr(), udpPacket(netip.AddrPortFrom(public, 4000), far, "hello")),
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		nat := newNAT(natsim.Kind{Preserve: true, Hairpin: true})
		nat.Translate(start, bytes.Clone(out))
		before := bytes.Clone(b)
		if !nat.Translate(start, b) {
			return
		}
		if len(b) != len(before) || b[ipProtocol] != before[ipProtocol] {
			t.Fatalf("%x became %x", before, b)
		}
		header, _, _ := split(b)
		if was, _, _ := split(before); sum(was) == 0xffff && sum(header) != 0xffff {
			t.Fatalf("the checksum of %x is wrong, that of %x was right", header, was)
		}
	})
}
