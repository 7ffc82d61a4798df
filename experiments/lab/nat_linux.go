package lab

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// mappingTimeout is how long a full-cone mapping lasts after the last packet out: the least that RFC 4787 REQ-5 allows.
const mappingTimeout = 2 * time.Minute

const ctStatusDNAT = 1 << 5 // IPS_DST_NAT of the kernel's nf_conntrack_common.h

// addNAT turns the router whose namespace the thread is in into a NAT of the given kind. As nft would show it, for all kinds:
//
//	chain post    { type nat hook postrouting priority srcnat;  oifname wan masquerade [fully-random] }
//	chain input   { type filter hook input priority filter;     iifname wan ct state != established,related drop }
//	chain forward { type filter hook forward priority filter; policy drop
//	                ct state established,related accept         (after the lines of the kind)
//	                iifname lan oifname wan accept }
//
// The input chain matters: a packet that nobody asked for is addressed to the router itself. Were it not dropped there,
// conntrack would confirm its entry, which then occupies the mapping that the host's own packet to that
// peer would get, and masquerade would choose another port.
//
// Host is the only host behind a full cone. With byUser, UDP is the business of a userNAT, and the kernel keeps its hands off it:
//
//	chain raw     { type filter hook prerouting priority raw;   meta l4proto udp notrack }
//	chain forward { meta l4proto udp accept;  iifname wan oifname nat accept;  iifname nat oifname lan accept
//	                ct state invalid drop }
func addNAT(k Kind, byUser bool, host netip.Addr) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "lab"})
	drop := nftables.ChainPolicyDrop
	post := c.AddChain(&nftables.Chain{Name: "post", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	input := c.AddChain(&nftables.Chain{Name: "input", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter})
	forward := c.AddChain(&nftables.Chain{Name: "forward", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	rule := func(chain *nftables.Chain, parts ...[]expr.Any) {
		r := &nftables.Rule{Table: t, Chain: chain}
		for _, p := range parts {
			r.Exprs = append(r.Exprs, p...)
		}
		c.AddRule(r)
	}

	rule(post, oif(wanName), []expr.Any{&expr.Masq{FullyRandom: k == Symmetric || k == IPv6Firewall}})
	known := ct(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
	rule(input, iif(wanName), known, verdict(expr.VerdictAccept))
	rule(input, iif(wanName), verdict(expr.VerdictDrop))
	switch {
	case byUser:
		raw := c.AddChain(&nftables.Chain{Name: "raw", Table: t, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRaw})
		rule(raw, udp(), []expr.Any{&expr.Notrack{}})
		rule(forward, udp(), verdict(expr.VerdictAccept))
		rule(forward, iif(wanName), oif(tunName), verdict(expr.VerdictAccept))
		rule(forward, iif(tunName), oif(lanName), verdict(expr.VerdictAccept))
		rule(forward, ct(expr.CtKeySTATE, expr.CtStateBitINVALID), verdict(expr.VerdictDrop))
	case k == UDPBlocked:
		rule(forward, udp(), verdict(expr.VerdictDrop))
	case k == FullCone:
		if err := addFullCone(c, t, forward, rule, host); err != nil {
			return err
		}
	}
	rule(forward, known, verdict(expr.VerdictAccept))
	if k == HTTPSOnly {
		for _, port := range []uint16{80, 443} {
			rule(forward, iif(lanName), oif(wanName), tcpTo(port), verdict(expr.VerdictAccept))
		}
	} else {
		rule(forward, iif(lanName), oif(wanName), verdict(expr.VerdictAccept))
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables rules of a %s NAT: %w", k, err)
	}
	return nil
}

// addFullCone lets packets from anyone come in at ports from which the host has sent, for as long as the mapping lasts:
//
//	set mapped { type inet_service; flags dynamic,timeout; timeout 2m }
//	chain pre     { type nat hook prerouting priority dstnat; iifname wan udp dport @mapped dnat to HOST }
//	chain forward { iifname lan oifname wan meta l4proto udp update @mapped { udp sport }
//	                iifname wan ct status dnat accept }
//
// The mapped port is the host's own: only one host is behind the NAT, so masquerade has no reason to change it.
func addFullCone(c *nftables.Conn, t *nftables.Table, forward *nftables.Chain,
	rule func(*nftables.Chain, ...[]expr.Any), host netip.Addr) error {
	mapped := &nftables.Set{Table: t, ID: 1, Name: "mapped", KeyType: nftables.TypeInetService,
		Dynamic: true, HasTimeout: true, Timeout: mappingTimeout}
	if err := c.AddSet(mapped, nil); err != nil {
		return fmt.Errorf("nftables set: %w", err)
	}
	pre := c.AddChain(&nftables.Chain{Name: "pre", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
	rule(pre, iif(wanName), udp(), []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: 1, SetName: mapped.Name, SetID: mapped.ID},
		&expr.Immediate{Register: 1, Data: host.AsSlice()},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
	})
	rule(forward, iif(lanName), oif(wanName), udp(), []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		&expr.Dynset{SrcRegKey: 1, SetName: mapped.Name, SetID: mapped.ID, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: mappingTimeout},
	})
	rule(forward, iif(wanName), ct(expr.CtKeySTATUS, ctStatusDNAT), verdict(expr.VerdictAccept))
	return nil
}

func iif(name string) []expr.Any { return meta(expr.MetaKeyIIFNAME, ifName(name)) }
func oif(name string) []expr.Any { return meta(expr.MetaKeyOIFNAME, ifName(name)) }
func udp() []expr.Any            { return meta(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_UDP}) }

// tcpTo matches TCP to a port.
func tcpTo(port uint16) []expr.Any {
	return append(meta(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_TCP}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)})
}

func meta(key expr.MetaKey, value []byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: value},
	}
}

// ct matches packets whose conntrack entry has any of the bits.
func ct(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func ifName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
