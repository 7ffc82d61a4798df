package wan

import "encoding/binary"

// A frame as a TAP device with IFF_VNET_HDR gives it, and takes it: a header of virtio (struct virtio_net_hdr of the Virtual I/O Device
// specification, 5.1.6, in the machine's byte order), then Ethernet. A frame may be a batch of packets of one flow,
// which have one set of headers, and payloads of a size that the header tells.
const (
	vnetHeader   = 10
	vnetFlags    = 0
	vnetGSO      = 1
	vnetHdrLen   = 2
	vnetSize     = 4
	vnetStart    = 6
	vnetOffset   = 8
	needsCsum    = 1
	gsoTCP4      = 1
	gsoTCP6      = 4
	gsoUDP       = 5
	gsoECN       = 0x80
	etherHeader  = 14
	etherType    = 12
	typeIPv4     = 0x0800
	typeARP      = 0x0806
	typeIPv6     = 0x86dd
	protoTCP     = 6
	protoUDP     = 17
	protoICMPv6  = 58
	ip4Header    = 20
	ip6Header    = 40
	udpHeader    = 8
	tcpHeader    = 20
	tcpFlags     = 13
	tcpFIN       = 0x01
	tcpPSH       = 0x08
	tcpCWR       = 0x80
	neighbourAsk = 135 // ICMPv6 (RFC 4861), and the answer is the next
	maxFrame     = vnetHeader + etherHeader + 1<<16
)

// batch is a frame of several packets.
type batch struct {
	frame   []byte // with the header of virtio
	headers int    // bytes of it before the payload
	l4      int    // where the header of TCP or UDP is
	size    int    // of each payload but the last
	packets int
}

// asBatch takes a frame apart; false means that it is one packet.
func asBatch(frame []byte) (batch, bool) {
	if len(frame) < vnetHeader+etherHeader || frame[vnetGSO] == 0 || frame[vnetFlags]&needsCsum == 0 {
		return batch{}, false
	}
	b := batch{
		frame: frame, size: int(binary.NativeEndian.Uint16(frame[vnetSize:])),
		l4: vnetHeader + int(binary.NativeEndian.Uint16(frame[vnetStart:])),
	}
	header := udpHeader
	switch frame[vnetGSO] &^ gsoECN {
	case gsoUDP:
	case gsoTCP4, gsoTCP6:
		header = tcpHeader
	default:
		return batch{}, false
	}
	if b.size == 0 || b.l4+header > len(frame) || !b.afterIP() {
		return batch{}, false
	}
	if header == tcpHeader {
		header = int(frame[b.l4+12]>>4) * 4
	}
	b.headers = b.l4 + header
	if sum := int(binary.NativeEndian.Uint16(frame[vnetOffset:])); header < udpHeader || sum+2 > min(header, tcpHeader) {
		return batch{}, false
	}
	payload := len(frame) - b.headers
	if payload <= b.size {
		return batch{}, false
	}
	b.packets = (payload + b.size - 1) / b.size
	return b, true
}

// afterIP tells whether the header of TCP or UDP is behind one of IP.
func (b batch) afterIP() bool {
	const ip = vnetHeader + etherHeader
	switch binary.BigEndian.Uint16(b.frame[vnetHeader+etherType:]) {
	case typeIPv4:
		return b.l4 >= ip+ip4Header && b.l4 == ip+int(b.frame[ip]&15)*4
	case typeIPv6:
		return b.l4 >= ip+ip6Header
	}
	return false
}

// bytes is the size of a packet with its IP header.
func (b batch) bytes(i int) int {
	return b.headers - vnetHeader - etherHeader + min(b.size, len(b.frame)-b.headers-i*b.size)
}

// length is that of the frame that some of the packets make.
func (b batch) length(from, to int) int {
	return b.headers + min(to*b.size, len(b.frame)-b.headers) - from*b.size
}

// slice makes the frame of the packets in [from, to), as the network would have it if the others had been cut off. dst has its length.
func (b batch) slice(dst []byte, from, to int) {
	copy(dst, b.frame[:b.headers])
	copy(dst[b.headers:], b.frame[b.headers+from*b.size:])
	if from == 0 && to == b.packets {
		return
	}
	if to-from == 1 {
		clear(dst[vnetGSO:vnetStart])
	}
	ip, l4 := dst[vnetHeader+etherHeader:], dst[b.l4:]
	var addresses []byte
	if binary.BigEndian.Uint16(dst[vnetHeader+etherType:]) == typeIPv6 {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-ip6Header))
		addresses = ip[8:ip6Header]
	} else {
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[4:], binary.BigEndian.Uint16(ip[4:])+uint16(from))
		binary.BigEndian.PutUint16(ip[10:], 0)
		binary.BigEndian.PutUint16(ip[10:], ^fold(sum(ip[:int(ip[0]&15)*4])))
		addresses = ip[12:20]
	}
	protocol := uint32(protoUDP)
	if b.frame[vnetGSO]&^gsoECN == gsoUDP {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	} else {
		protocol = protoTCP
		binary.BigEndian.PutUint32(l4[4:], binary.BigEndian.Uint32(l4[4:])+uint32(from*b.size))
		if from > 0 {
			l4[tcpFlags] &^= tcpCWR
		}
		if to < b.packets {
			l4[tcpFlags] &^= tcpFIN | tcpPSH
		}
	}
	// Whoever sends the packets on completes the sum of the pseudo-header.
	at := binary.NativeEndian.Uint16(dst[vnetOffset:])
	binary.BigEndian.PutUint16(l4[at:], fold(sum(addresses)+protocol+uint32(len(l4))))
}

// sum adds up 16-bit words (RFC 1071); b has an even number of bytes.
func sum(b []byte) (s uint32) {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// neighbours tells whether a frame is part of finding out the link-layer address of somebody on the lab's bridge, which
// stands for routers that know each other.
func neighbours(frame []byte) bool {
	if len(frame) < vnetHeader+etherHeader {
		return true // not IP at all
	}
	ip := frame[vnetHeader+etherHeader:]
	switch binary.BigEndian.Uint16(frame[vnetHeader+etherType:]) {
	case typeARP:
		return true
	case typeIPv6:
		return len(ip) > ip6Header && ip[6] == protoICMPv6 && (ip[ip6Header] == neighbourAsk || ip[ip6Header] == neighbourAsk+1)
	}
	return false
}
