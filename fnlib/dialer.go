package fnlib

import (
	"cmp"
	"context"
	"net"
	"strings"
)

// Dialer dials other functions for libraries that dial "host:port", such as net/http and gRPC. The host
// is a name and the port a service, which may be any text unless the library insists on a number, as URLs do:
//
//	NAME           the service "default", what Listen("") listens for
//	NAME:SERVICE   that service, so "reduce-0:8080" is what Listen("8080") listens for
//	NAME:80        the service "80": what net/http makes of http://NAME/ (and NAME:443 of https://NAME/),
//	               for it always adds a port; Dialer.Service maps both to another service
//
// All methods are safe for concurrent use. The fields may be set before the first.
type Dialer struct {
	// Path is the policy of the connections; the zero value is Auto.
	Path Path
	// Service, if set, is dialled in place of the services "80" and "443", so that URLs without a port
	// reach it. "default" makes http://NAME/ reach what Listen("") listens for.
	Service string

	n *Node
}

// Dialer returns a dialer for http.Transport.DialContext, grpc.WithContextDialer and the like.
func (n *Node) Dialer() *Dialer { return &Dialer{n: n} }

// DialContext is for http.Transport.DialContext and whatever else takes a network: one of TCP's, or
// "fnwire". ctx bounds the dial only, which waits for the name to be joined, as Dial does.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	switch network {
	case "tcp", "tcp4", "tcp6", Addr{}.Network():
		return d.DialTarget(ctx, addr)
	}
	return nil, net.UnknownNetworkError(network)
}

// DialTarget is for grpc.WithContextDialer. Targets must begin with "passthrough:///", or gRPC looks
// the name up in the DNS.
func (d *Dialer) DialTarget(ctx context.Context, addr string) (net.Conn, error) {
	if name, port, _ := strings.Cut(addr, ":"); port == "80" || port == "443" {
		addr = name + ":" + cmp.Or(d.Service, port)
	}
	c, err := d.n.DialPath(ctx, addr, d.Path)
	if err != nil {
		return nil, err // not c, which would be a net.Conn that is not nil
	}
	return c, nil
}
