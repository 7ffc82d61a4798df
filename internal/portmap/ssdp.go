package portmap

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

const (
	ssdpPort = 1900
	ssdpMax  = 1500 // of an answer
	igdType  = "urn:schemas-upnp-org:device:InternetGatewayDevice:"
	maxURL   = 512
)

// errNoIGD says that nobody answered a search.
var errNoIGD = errors.New("no router answers UPnP")

// search finds the address of the router's description. The router itself is asked first, since no other's word counts,
// and then, as some listen there only, the multicast group on the router's network. It ends after 2.75 s.
func search(ctx context.Context, self netip.Addr, gateway netip.AddrPort) (*url.URL, error) {
	// Not connected: some answer from another port than the one that was asked.
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(self, 0)))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // ends what is read
	group := netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 255, 255, 250}), ssdpPort)
	buf := make([]byte, ssdpMax+1)
	for i, wait := range []time.Duration{firstWait, 2 * firstWait, 8 * firstWait} {
		for _, version := range []string{"2", "1"} {
			_, _ = conn.WriteToUDPAddrPort(appendSearch(nil, gateway, version), gateway) // if it fails, so does what is read
			if i > 0 && !self.IsLoopback() {
				_, _ = conn.WriteToUDPAddrPort(appendSearch(nil, group, version), group)
			}
		}
		_ = conn.SetReadDeadline(time.Now().Add(wait)) // fails when closed, as the read then does
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				break
			}
			if from.Addr().Unmap() != gateway.Addr() {
				continue
			}
			if at, err := parseSearchAnswer(buf[:n], gateway.Addr()); err == nil {
				return at, nil
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, errNoIGD
}

func appendSearch(b []byte, to netip.AddrPort, version string) []byte {
	b = append(b, "M-SEARCH * HTTP/1.1\r\nHOST: "...)
	b = to.AppendTo(b)
	b = append(b, "\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: "...)
	b = append(b, igdType...)
	b = append(b, version...)
	return append(b, "\r\n\r\n"...)
}

// parseSearchAnswer returns where the description of the gateway is; anything else is errForeign.
func parseSearchAnswer(b []byte, gateway netip.Addr) (*url.URL, error) {
	if len(b) > ssdpMax {
		return nil, errForeign
	}
	status, rest, _ := strings.Cut(string(b), "\n")
	if f := strings.Fields(status); len(f) < 2 || !strings.HasPrefix(f[0], "HTTP/1.") || f[1] != "200" {
		return nil, errForeign
	}
	var location, target string
	for line := range strings.Lines(rest) {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			continue // the empty line, or what no header is
		}
		switch value = strings.TrimSpace(value); {
		case strings.EqualFold(name, "LOCATION"):
			location = value
		case strings.EqualFold(name, "ST"):
			target = value
		}
	}
	if !strings.HasPrefix(target, igdType) {
		return nil, errForeign
	}
	return gatewayURL(nil, location, gateway)
}

// gatewayURL reads a URL, relative to base if that is not nil. It must be plain HTTP at the gateway's own address, given as
// a number: whoever could make the client ask elsewhere would have it do his errands.
func gatewayURL(base *url.URL, s string, gateway netip.Addr) (*url.URL, error) {
	if s == "" || len(s) > maxURL {
		return nil, errForeign
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, errForeign
	}
	if base != nil {
		u = base.ResolveReference(u)
	}
	host, err := netip.ParseAddr(u.Hostname())
	if err != nil || u.Scheme != "http" || u.User != nil || host != gateway {
		return nil, errForeign
	}
	if _, err := hostPort(u); err != nil {
		return nil, errForeign
	}
	return u, nil
}

// hostPort is where a URL that gatewayURL has let pass is to be reached.
func hostPort(u *url.URL) (netip.AddrPort, error) {
	if u.Port() == "" {
		a, err := netip.ParseAddr(u.Hostname())
		return netip.AddrPortFrom(a, 80), err
	}
	return netip.ParseAddrPort(u.Host)
}
