package portmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

const (
	pcpVersion  = 2
	pmpVersion  = 0
	opMap       = 1
	opResponse  = 0x80
	udpProtocol = 17
	pcpSize     = 60
	pmpAddrSize = 12
	pmpMapSize  = 16
	maxPacket   = 1100 // RFC 6887, 7

	resultOK      = 0
	resultVersion = 1 // the router does not know this version
)

var (
	errForeign = errors.New("no answer to this question")
	errVersion = errors.New("the router does not know this version")
)

// refusedError is a result code other than success.
type refusedError struct{ code uint16 }

func (e *refusedError) Error() string {
	text := map[uint16]string{2: "not authorized", 3: "network failure, or malformed", 4: "no resources left", 8: "no resources left", 9: "unsupported protocol"}[e.code]
	return fmt.Sprintf("the router refuses: result %d %s", e.code, text)
}

// nonce tells one client's mapping from others'.
type nonce [12]byte

// assigned is what a router has given.
type assigned struct {
	external netip.AddrPort
	lifetime time.Duration
}

func appendPCP(b []byte, client netip.Addr, n nonce, port uint16, suggested netip.AddrPort, lifetime time.Duration) []byte {
	b = append(b, pcpVersion, opMap, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(lifetime/time.Second))
	from, external := client.As16(), netip.IPv4Unspecified().As16()
	if suggested.IsValid() {
		external = suggested.Addr().As16()
	}
	b = append(b, from[:]...)
	b = append(b, n[:]...)
	b = append(b, udpProtocol, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint16(b, suggested.Port())
	return append(b, external[:]...)
}

// parsePCP reads the answer to a request with this nonce and port. errVersion means that NAT-PMP may do.
func parsePCP(b []byte, n nonce, port uint16) (assigned, error) {
	switch {
	case len(b) >= 4 && b[0] == pmpVersion && b[1]&opResponse != 0: // a NAT-PMP router, which must answer so (RFC 6886, 3.5)
		return assigned{}, errVersion
	case len(b) < 24 || len(b) > maxPacket || b[0] != pcpVersion || b[1] != opMap|opResponse:
		return assigned{}, errForeign
	case b[3] == resultVersion:
		return assigned{}, errVersion
	case len(b) < pcpSize || nonce(b[24:36]) != n || b[36] != udpProtocol || binary.BigEndian.Uint16(b[40:]) != port:
		return assigned{}, errForeign
	case b[3] != resultOK:
		return assigned{}, &refusedError{uint16(b[3])}
	}
	external, _ := netip.AddrFromSlice(b[44:60]) // of 16 bytes
	return assigned{
		external: netip.AddrPortFrom(external.Unmap(), binary.BigEndian.Uint16(b[42:])),
		lifetime: time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second,
	}, nil
}

func appendPMPAddr(b []byte) []byte { return append(b, pmpVersion, 0) }

func parsePMPAddr(b []byte) (netip.Addr, error) {
	if err := checkPMP(b, 0, pmpAddrSize); err != nil {
		return netip.Addr{}, err
	}
	return netip.AddrFrom4([4]byte(b[8:12])), nil
}

func appendPMPMap(b []byte, port, suggested uint16, lifetime time.Duration) []byte {
	b = append(b, pmpVersion, opMap, 0, 0)
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint16(b, suggested)
	return binary.BigEndian.AppendUint32(b, uint32(lifetime/time.Second))
}

func parsePMPMap(b []byte, port uint16) (external uint16, lifetime time.Duration, err error) {
	if err := checkPMP(b, opMap, pmpMapSize); err != nil {
		return 0, 0, err
	}
	if binary.BigEndian.Uint16(b[8:]) != port {
		return 0, 0, errForeign
	}
	return binary.BigEndian.Uint16(b[10:]), time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Second, nil
}

func checkPMP(b []byte, op byte, size int) error {
	switch {
	case len(b) < 4 || len(b) > maxPacket || b[0] != pmpVersion || b[1] != op|opResponse:
		return errForeign
	case binary.BigEndian.Uint16(b[2:]) == resultVersion:
		return errVersion
	case binary.BigEndian.Uint16(b[2:]) != resultOK:
		return &refusedError{binary.BigEndian.Uint16(b[2:])}
	case len(b) < size:
		return errForeign
	}
	return nil
}
