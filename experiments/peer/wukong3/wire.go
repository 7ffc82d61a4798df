package wukong3

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

const (
	msgPair    = 1
	msgMatch   = 2
	msgDone    = 3
	msgRefused = 4

	udpEcho      = 1
	udpEchoed    = 2
	udpCalling   = 3
	udpAgreed    = 4
	udpConnected = 5

	flagSends  = 1
	flagSerial = 2

	idBytes     = 16
	addrBytes   = 18
	echoBytes   = 1 + idBytes + addrBytes
	punchBytes  = 1 + idBytes
	maxKey      = 256
	maxCert     = 1024
	maxReason   = 256
	headBytes   = 3
	pairHead    = 4 + 1 + 2 + idBytes + 2
	matchHead   = 4 + idBytes + addrBytes
	maxMessages = pairHead + maxCert + maxKey // the longest body
)

var errMalformed = errors.New("malformed message")

// id is 16 random bytes that name a node, a pairing or a question.
type id [idBytes]byte

type pairMsg struct {
	number        uint32
	sends, serial bool
	port          uint16
	node          id
	cert          []byte
	key           string
}

type matchMsg struct {
	number  uint32
	pairing id
	addr    netip.AddrPort
	cert    []byte
}

type doneMsg struct{ number uint32 }

type refusedMsg struct {
	number uint32
	reason string
}

func appendHead(b []byte, kind byte, n int) []byte {
	return binary.BigEndian.AppendUint16(append(b, kind), uint16(n))
}

func (m pairMsg) append(b []byte) []byte {
	b = appendHead(b, msgPair, pairHead+len(m.cert)+len(m.key))
	b = binary.BigEndian.AppendUint32(b, m.number)
	var flags byte
	if m.sends {
		flags |= flagSends
	}
	if m.serial {
		flags |= flagSerial
	}
	b = binary.BigEndian.AppendUint16(append(b, flags), m.port)
	b = append(b, m.node[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.cert)))
	return append(append(b, m.cert...), m.key...)
}

func (m matchMsg) append(b []byte) []byte {
	b = appendHead(b, msgMatch, matchHead+len(m.cert))
	b = binary.BigEndian.AppendUint32(b, m.number)
	b = appendAddr(append(b, m.pairing[:]...), m.addr)
	return append(b, m.cert...)
}

func (m doneMsg) append(b []byte) []byte {
	return binary.BigEndian.AppendUint32(appendHead(b, msgDone, 4), m.number)
}

func (m refusedMsg) append(b []byte) []byte {
	reason := m.reason[:min(len(m.reason), maxReason)]
	b = binary.BigEndian.AppendUint32(appendHead(b, msgRefused, 4+len(reason)), m.number)
	return append(b, reason...)
}

// parse returns the message of one kind that b is: a pairMsg, matchMsg, doneMsg or refusedMsg.
func parse(kind byte, b []byte) (any, error) {
	if len(b) < 4 {
		return nil, errMalformed
	}
	number := binary.BigEndian.Uint32(b)
	switch {
	case kind == msgPair && len(b) >= pairHead:
		m := pairMsg{number: number, sends: b[4]&flagSends != 0, serial: b[4]&flagSerial != 0, port: binary.BigEndian.Uint16(b[5:]), node: id(b[7:])}
		n := int(binary.BigEndian.Uint16(b[pairHead-2:]))
		rest := b[pairHead:]
		if b[4]&^(flagSends|flagSerial) != 0 || n > maxCert || n > len(rest) {
			return nil, errMalformed
		}
		m.cert, m.key = rest[:n:n], string(rest[n:])
		if err := checkKey(m.key); err != nil {
			return nil, err
		}
		return m, nil
	case kind == msgMatch && len(b) >= matchHead && len(b) <= matchHead+maxCert:
		return matchMsg{number, id(b[4:]), addrOf(b[4+idBytes:]), b[matchHead:]}, nil
	case kind == msgDone && len(b) == 4:
		return doneMsg{number}, nil
	case kind == msgRefused && len(b) <= 4+maxReason:
		return refusedMsg{number, string(b[4:])}, nil
	}
	return nil, errMalformed
}

func checkKey(key string) error {
	if len(key) < 1 || len(key) > maxKey {
		return fmt.Errorf("key of %d bytes: want 1 to %d", len(key), maxKey)
	}
	return nil
}

// read reads the next message, and no further.
func read(r io.Reader) (any, error) {
	var head [headBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[1:]))
	if n > maxMessages {
		return nil, fmt.Errorf("message of %d bytes: want at most %d", n, maxMessages)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return parse(head[0], b)
}

func appendAddr(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().As16()
	return binary.BigEndian.AppendUint16(append(b, ip[:]...), a.Port())
}

// addrOf reads an address of addrBytes.
func addrOf(b []byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[16:]))
}

// appendEcho appends ECHO, or ECHOED if the question came from an address. Both are of one length, so that nobody is sent more
// than was sent in his name.
func appendEcho(b []byte, token id, from netip.AddrPort) []byte {
	if !from.IsValid() {
		return append(append(append(b, udpEcho), token[:]...), make([]byte, addrBytes)...)
	}
	return appendAddr(append(append(b, udpEchoed), token[:]...), from)
}

// parseUDP returns what a packet is of; from is of ECHOED only.
func parseUDP(b []byte) (kind byte, of id, from netip.AddrPort, ok bool) {
	if len(b) < punchBytes {
		return 0, of, from, false
	}
	kind, of = b[0], id(b[1:])
	switch kind {
	case udpEcho, udpEchoed:
		if len(b) != echoBytes {
			return 0, of, from, false
		}
		if kind == udpEchoed {
			from = addrOf(b[punchBytes:])
		}
		return kind, of, from, true
	case udpCalling, udpAgreed, udpConnected:
		return kind, of, from, len(b) == punchBytes
	}
	return 0, of, from, false
}
