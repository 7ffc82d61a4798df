package portmap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"
)

const (
	otherPorts = 3 // tried, the first one included, while they are others'
	minPort    = 1024
)

// igd is a router that speaks UPnP (an Internet Gateway Device).
type igd struct {
	gateway   netip.Addr
	service   service
	external  netip.Addr
	permanent bool // it knows no leases
}

// upnp maps the port at an internet gateway device, or ends the mapping if life is zero.
func (c *client) upnp(ctx context.Context, gateway netip.AddrPort, self netip.Addr, life time.Duration) (assigned, error) {
	switch d := c.igd; {
	case life == 0 && d == nil:
		return assigned{}, ErrSilent // nothing is mapped by UPnP
	case life == 0:
		return assigned{}, d.unmap(ctx, c.have.Port())
	case d != nil && d.gateway == gateway.Addr():
		if err := d.ask(ctx); err == nil {
			if got, err := d.add(ctx, self, c.cfg.Port, c.have.Port(), life); err == nil {
				return got, nil
			}
		}
	}
	c.igd = nil // it may have been restarted, and be elsewhere now
	d, err := findIGD(ctx, self, gateway)
	if err != nil {
		return assigned{}, err
	}
	got, err := d.add(ctx, self, c.cfg.Port, cmp.Or(c.have.Port(), c.cfg.Port), life)
	if err == nil {
		c.igd = d
	}
	return got, err
}

// findIGD searches the router, and chooses the first of its connections that has a public address.
func findIGD(ctx context.Context, self netip.Addr, gateway netip.AddrPort) (*igd, error) {
	at, err := search(ctx, self, gateway)
	if errors.Is(err, errNoIGD) {
		return nil, ErrSilent
	}
	if err != nil {
		return nil, err
	}
	services, err := describe(ctx, at, gateway.Addr())
	if err != nil {
		return nil, err
	}
	var refused error
	for _, s := range services {
		d := &igd{gateway: gateway.Addr(), service: s}
		if refused = d.ask(ctx); refused == nil {
			return d, nil
		}
	}
	return nil, refused
}

// ask learns the external address. It comes before a port is asked for, which would be of no use without.
func (d *igd) ask(ctx context.Context) error {
	r, err := d.service.call(ctx, "GetExternalIPAddress", nil)
	if err != nil {
		return err
	}
	d.external, err = netip.ParseAddr(r.address)
	if err != nil || !d.external.Is4() || !outside(d.external) {
		return fmt.Errorf("the router's own address is %.40q, which is of no use outside: there is another NAT before it, or it is offline", r.address)
	}
	return nil
}

// add maps a port: the one wanted, or, if that is another's, one that is not.
func (d *igd) add(ctx context.Context, self netip.Addr, internal, external uint16, life time.Duration) (assigned, error) {
	if d.service.kind == wanIP2 {
		r, err := d.tryMap(ctx, "AddAnyPortMapping", self, internal, external, life)
		if err == nil && r.port != 0 {
			return assigned{netip.AddrPortFrom(d.external, r.port), life}, nil
		}
		if err != nil && !isFault(err, upnpInvalidAction, upnpNotImplemented) {
			return assigned{}, err
		}
	}
	var err error
	for range otherPorts {
		_, err = d.tryMap(ctx, "AddPortMapping", self, internal, external, life)
		switch {
		case err == nil:
			return assigned{netip.AddrPortFrom(d.external, external), life}, nil
		case isFault(err, upnpSamePorts) && external != internal:
			external = internal
		case isFault(err, upnpConflict):
			external = uint16(minPort + rand.IntN(1<<16-minPort))
		default:
			return assigned{}, err
		}
	}
	return assigned{}, err
}

// tryMap asks once, or twice if the router turns out to know permanent mappings only.
func (d *igd) tryMap(ctx context.Context, action string, self netip.Addr, internal, external uint16, life time.Duration) (reply, error) {
	if d.permanent {
		life = 0
	}
	r, err := d.service.call(ctx, action, mapArguments(self, internal, external, life))
	if isFault(err, upnpPermanentOnly) && !d.permanent {
		d.permanent = true
		return d.service.call(ctx, action, mapArguments(self, internal, external, 0))
	}
	return r, err
}

func (d *igd) unmap(ctx context.Context, external uint16) error {
	_, err := d.service.call(ctx, "DeletePortMapping", []argument{
		{"NewRemoteHost", ""}, {"NewExternalPort", strconv.Itoa(int(external))}, {"NewProtocol", "UDP"},
	})
	return err
}

// mapArguments are those of AddPortMapping and AddAnyPortMapping, in the order that the standard has and some routers want.
func mapArguments(self netip.Addr, internal, external uint16, life time.Duration) []argument {
	return []argument{
		{"NewRemoteHost", ""},
		{"NewExternalPort", strconv.Itoa(int(external))},
		{"NewProtocol", "UDP"},
		{"NewInternalPort", strconv.Itoa(int(internal))},
		{"NewInternalClient", self.String()},
		{"NewEnabled", "1"},
		{"NewPortMappingDescription", "fnwire"},
		{"NewLeaseDuration", strconv.Itoa(int(life / time.Second))},
	}
}
