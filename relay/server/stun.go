package server

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// RFC 8489.
const (
	stunHeader         = 20
	stunCookie         = 0x2112A442
	stunRequest        = 0x0001
	stunSuccess        = 0x0101
	attrChangeRequest  = 0x0003 // RFC 5780, 7.2
	changePort         = 2      // the only change that there is another socket for
	attrXORMapped      = 0x0020
	attrFingerprint    = 0x8028
	attrOptional       = 0x8000 // from here on attributes need not be understood
	fingerprintXOR     = 0x5354554e
	fingerprintBytes   = 8
	stunFamilyIPv4     = 1
	stunFamilyIPv6     = 2
	maxSTUNRequestSize = 512
)

// appendSTUN appends the answer to a binding request, or nothing: if b is no such request, asks for
// what this responder does not know, or is shorter than its answer. With change the answer is to leave from the other
// port: it goes to who asked all the same, and is no longer.
func appendSTUN(out, b []byte, from netip.AddrPort) (_ []byte, change bool) {
	if len(b) < stunHeader || len(b) > maxSTUNRequestSize || len(b)%4 != 0 ||
		binary.BigEndian.Uint16(b) != stunRequest || int(binary.BigEndian.Uint16(b[2:])) != len(b)-stunHeader ||
		binary.BigEndian.Uint32(b[4:]) != stunCookie {
		return out, false
	}
	fingerprint, change, ok := stunAttributes(b)
	if !ok {
		return out, false
	}
	addr := from.Addr().Unmap()
	value := 8
	if !addr.Is4() {
		value = 20
	}
	body := 4 + value
	if fingerprint {
		body += fingerprintBytes
	}
	if stunHeader+body > len(b) {
		return out, false
	}
	start := len(out)
	out = binary.BigEndian.AppendUint16(out, stunSuccess)
	out = binary.BigEndian.AppendUint16(out, uint16(body))
	out = append(out, b[4:stunHeader]...) // cookie and transaction ID
	out = binary.BigEndian.AppendUint16(out, attrXORMapped)
	out = binary.BigEndian.AppendUint16(out, uint16(value))
	family, ip := byte(stunFamilyIPv4), addr.As16()
	raw := ip[12:]
	if !addr.Is4() {
		family, raw = stunFamilyIPv6, ip[:]
	}
	out = append(out, 0, family)
	out = binary.BigEndian.AppendUint16(out, from.Port()^(stunCookie>>16))
	for i, v := range raw {
		out = append(out, v^b[4+i])
	}
	if fingerprint {
		sum := crc32.ChecksumIEEE(out[start:]) ^ fingerprintXOR
		out = binary.BigEndian.AppendUint16(out, attrFingerprint)
		out = binary.BigEndian.AppendUint16(out, 4)
		out = binary.BigEndian.AppendUint32(out, sum)
	}
	return out, change
}

// stunAttributes walks the attributes of a request: fingerprint says that there is a correct one, change that the
// answer is to come from the other port, ok that all is well formed and nothing must be understood that is not.
func stunAttributes(b []byte) (fingerprint, change, ok bool) {
	for at := stunHeader; at < len(b); {
		if fingerprint || len(b)-at < 4 {
			return false, false, false // FINGERPRINT is the last
		}
		kind, n := binary.BigEndian.Uint16(b[at:]), int(binary.BigEndian.Uint16(b[at+2:]))
		next := at + 4 + (n+3)&^3
		switch {
		case next > len(b):
			return false, false, false
		case kind == attrFingerprint:
			if n != 4 || binary.BigEndian.Uint32(b[at+4:]) != crc32.ChecksumIEEE(b[:at])^fingerprintXOR {
				return false, false, false
			}
			fingerprint = true
		case kind == attrChangeRequest:
			// One that asks for no change is answered too: so clients find out that the attribute is known here.
			if n != 4 || binary.BigEndian.Uint32(b[at+4:])&^changePort != 0 {
				return false, false, false
			}
			change = binary.BigEndian.Uint32(b[at+4:]) == changePort
		case kind < attrOptional:
			return false, false, false
		}
		at = next
	}
	return fingerprint, change, true
}
