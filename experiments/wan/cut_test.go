package wan

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"testing"
)

// packetOf makes a frame as the kernel gives it, with size bytes of payload in each packet.
func packetOf(gso byte, v6 bool, size int, payload []byte) []byte {
	f := make([]byte, vnetHeader+etherHeader, 200+len(payload))
	ip, protocol, l4 := make([]byte, 20), byte(protoUDP), make([]byte, udpHeader)
	at := 6
	if gso != gsoUDP {
		protocol, l4, at = protoTCP, make([]byte, tcpHeader), 16
		binary.BigEndian.PutUint32(l4[4:], 0xfffffff0)
		l4[12], l4[tcpFlags] = 5<<4, tcpFIN|tcpPSH|tcpCWR|0x10
	} else {
		binary.BigEndian.PutUint16(l4[4:], uint16(udpHeader+len(payload)))
	}
	binary.BigEndian.PutUint16(f[vnetHeader+etherType:], typeIPv4)
	if v6 {
		binary.BigEndian.PutUint16(f[vnetHeader+etherType:], typeIPv6)
		ip = make([]byte, ip6Header)
		ip[0], ip[6], ip[8], ip[24] = 0x60, protocol, 0xfd, 0xfd
		binary.BigEndian.PutUint16(ip[4:], uint16(len(l4)+len(payload)))
	} else {
		ip[0], ip[9], ip[12], ip[16] = 0x45, protocol, 10, 11
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(l4)+len(payload)))
		binary.BigEndian.PutUint16(ip[4:], 0xffff)
		binary.BigEndian.PutUint16(ip[10:], ^fold(sum(ip)))
	}
	f[vnetFlags], f[vnetGSO] = needsCsum, gso
	binary.NativeEndian.PutUint16(f[vnetHdrLen:], uint16(etherHeader+len(ip)+len(l4)))
	binary.NativeEndian.PutUint16(f[vnetSize:], uint16(size))
	binary.NativeEndian.PutUint16(f[vnetStart:], uint16(etherHeader+len(ip)))
	binary.NativeEndian.PutUint16(f[vnetOffset:], uint16(at))
	return slices.Concat(f, ip, l4, payload)
}

// One packet of a batch of three, byte by byte.
func TestSliceGolden(t *testing.T) {
	b, ok := asBatch(packetOf(gsoUDP, false, 4, []byte("aaaabbbbcc")))
	if !ok || b.packets != 3 || b.bytes(0) != 32 || b.bytes(2) != 30 {
		t.Fatalf("%+v, %v", b, ok)
	}
	dst := make([]byte, b.length(1, 2))
	b.slice(dst, 1, 2)
	const want = "45000020000000000011a5ce0a0000000b000000" + "00000000000c151d" + "62626262" // identification 0xffff + 1
	if got := hex.EncodeToString(dst[vnetHeader+etherHeader:]); got != want {
		t.Errorf("packet %s, want %s", got, want)
	}
	if dst[vnetGSO] != 0 || dst[vnetFlags] != needsCsum {
		t.Errorf("header of virtio % x", dst[:vnetHeader])
	}
}

// Slices of a batch have its payload, headers that say what is in them, and right checksums.
func TestSlice(t *testing.T) {
	payload := bytes.Repeat([]byte("0123456789"), 100)
	for _, c := range []struct {
		gso byte
		v6  bool
	}{{gsoUDP, false}, {gsoUDP, true}, {gsoTCP4, false}, {gsoTCP6, true}, {gsoTCP4 | gsoECN, false}} {
		b, ok := asBatch(packetOf(c.gso, c.v6, 300, payload))
		if !ok || b.packets != 4 {
			t.Fatalf("%+v: %d packets, %v", c, b.packets, ok)
		}
		for from := range b.packets {
			for to := from + 1; to <= b.packets; to++ {
				dst := make([]byte, b.length(from, to))
				b.slice(dst, from, to)
				checkSlice(t, b, dst, from, to)
				if want := payload[from*300 : min(to*300, len(payload))]; !bytes.Equal(dst[b.headers:], want) {
					t.Errorf("%+v: payload of [%d, %d) is wrong", c, from, to)
				}
			}
		}
	}
}

func checkSlice(t *testing.T, b batch, dst []byte, from, to int) {
	t.Helper()
	ip, l4 := dst[vnetHeader+etherHeader:], dst[b.l4:]
	var pseudo uint32
	if ip[0]>>4 == 4 {
		if int(binary.BigEndian.Uint16(ip[2:])) != len(ip) || fold(sum(ip[:20])) != 0xffff {
			t.Errorf("[%d, %d): header of IPv4 % x", from, to, ip[:20])
		}
		if got, want := binary.BigEndian.Uint16(ip[4:]), binary.BigEndian.Uint16(b.frame[vnetHeader+etherHeader+4:])+uint16(from); got != want {
			t.Errorf("[%d, %d): identification %d, want %d", from, to, got, want)
		}
		pseudo = sum(ip[12:20]) + uint32(ip[9])
	} else {
		if int(binary.BigEndian.Uint16(ip[4:])) != len(ip)-ip6Header {
			t.Errorf("[%d, %d): header of IPv6 % x", from, to, ip[:8])
		}
		pseudo = sum(ip[8:ip6Header]) + uint32(ip[6])
	}
	at := 6
	if b.frame[vnetGSO]&^gsoECN == gsoUDP {
		if int(binary.BigEndian.Uint16(l4[4:])) != len(l4) {
			t.Errorf("[%d, %d): length of UDP", from, to)
		}
	} else {
		at = 16
		if got, want := binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(b.frame[b.l4+4:])+uint32(from*b.size); got != want {
			t.Errorf("[%d, %d): sequence number %d, want %d", from, to, got, want)
		}
		if last := l4[tcpFlags]&tcpFIN != 0; last != (to == b.packets) || l4[tcpFlags]&tcpCWR != 0 != (from == 0) {
			t.Errorf("[%d, %d): flags %x", from, to, l4[tcpFlags])
		}
	}
	if whole := from == 0 && to == b.packets; !whole && binary.BigEndian.Uint16(l4[at:]) != fold(pseudo+uint32(len(l4))) {
		t.Errorf("[%d, %d): sum of the pseudo-header", from, to)
	}
	if single := to-from == 1; single != (dst[vnetGSO] == 0) {
		t.Errorf("[%d, %d): kind of batch %d", from, to, dst[vnetGSO])
	}
}

// Whatever a device gives is cut without going out of bounds, and nothing is added or lost.
func FuzzBatch(f *testing.F) {
	payload := bytes.Repeat([]byte{1}, 100)
	for _, gso := range []byte{0, gsoUDP, gsoTCP4, gsoTCP6} {
		f.Add(packetOf(gso, gso == gsoTCP6, 30, payload))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > maxFrame || neighbours(frame) {
			return
		}
		b, ok := asBatch(frame)
		if !ok {
			return
		}
		bytes := 0
		for i := range b.packets {
			bytes += b.length(i, i+1) - b.headers
			b.slice(make([]byte, b.length(i, i+1)), i, i+1)
		}
		if bytes != len(frame)-b.headers {
			t.Errorf("%d bytes of payload, want %d", bytes, len(frame)-b.headers)
		}
	})
}
