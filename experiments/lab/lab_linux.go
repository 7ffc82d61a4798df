package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netns"

	"github.com/fnwire/fnwire/experiments/wan"
)

// Lab is a running lab. Its methods may be called from several goroutines.
type Lab struct {
	core     *node
	nodes    map[string]*node // of the hosts, by name
	routers  []*node
	internet *segment
	sites    map[string]*site // by the name of the first host behind the NAT
	seed     uint64
	lines    []line
	carrier  *wan.Carrier // nil if there are no lines
	spawner  *spawner
	blocks   blocks
	faults   atomic.Uint32 // made so far

	moving   sync.Mutex // guards the addresses in segments, once the lab is made
	segments []*segment

	hostsMu sync.RWMutex // guards hosts, whose addresses may change
	hosts   []HostInfo

	mu     sync.RWMutex // guards closed, and holds off closing while a namespace is being entered
	closed bool
	procs  procs
	done   chan struct{} // closed when Close has finished
}

// New makes the hosts of spec and joins them. [Enter] must have been called before. The lab lives until Close,
// or the end of the process; ctx only bounds its making. The error wraps [ErrUnavailable] if the rights are missing.
func New(ctx context.Context, spec Spec) (*Lab, error) {
	spec, err := spec.check()
	if err != nil {
		return nil, err
	}
	if err := usable(); err != nil {
		return nil, err
	}
	l := &Lab{
		nodes: map[string]*node{}, sites: map[string]*site{}, seed: spec.Seed,
		blocks: blocks{count: map[pair]int{}},
		procs:  procs{running: map[*Proc]struct{}{}},
		done:   make(chan struct{}),
	}
	if l.spawner, err = newSpawner(ctx); err != nil {
		return nil, err
	}
	if l.core, err = makeCore(); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	l.internet = l.segment(l.core, end{node: l.core, name: bridgeName, addr: coreAddr})
	for i, h := range spec.Hosts {
		if err = ctx.Err(); err == nil {
			err = l.addHost(i, h, shared(spec, h.Name))
		}
		if err != nil {
			_ = l.Close()
			return nil, fmt.Errorf("lab: host %s: %w", h.Name, err)
		}
	}
	if err := l.startLines(); err != nil {
		_ = l.Close()
		return nil, err
	}
	for _, s := range l.segments {
		if err := s.introduce(); err != nil {
			_ = l.Close()
			return nil, fmt.Errorf("lab: %w", err)
		}
	}
	if err := l.awaitUp(ctx); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	return l, nil
}

func (l *Lab) awaitUp(ctx context.Context) error {
	for _, router := range l.routers {
		if err := awaitUp(ctx, router, lanName); err != nil {
			return fmt.Errorf("router: %w", err)
		}
	}
	if err := awaitUp(ctx, l.core, portPrefix); err != nil {
		return fmt.Errorf("core: %w", err)
	}
	return nil
}

// shared tells whether others share the NAT of a host.
func shared(spec Spec, host string) bool {
	return slices.ContainsFunc(spec.Hosts, func(h Host) bool { return h.With == host })
}

func (l *Lab) addHost(i int, h Host, shared bool) error {
	n, err := newNode()
	if err != nil {
		return err
	}
	l.nodes[h.Name] = n
	info := HostInfo{Host: h, Addr: outsideAddr(i), PublicAddr: outsideAddr(i)}
	if h.NAT == None {
		err = l.plug(n, hostName, i, h)
	} else {
		info.Addr, info.PublicAddr, err = l.addBehind(i, h, n, shared)
		if err == nil && h.NAT == IPv6Firewall {
			info.Addr6, err = lan6(i, 2), l.addIPv6(i, n, l.sites[h.Name].router)
		}
	}
	l.hosts = append(l.hosts, info)
	return err
}

// addBehind puts the i-th host behind its NAT, which it makes unless the host shares it.
func (l *Lab) addBehind(i int, h Host, n *node, shared bool) (own, public netip.Addr, err error) {
	t, err := h.NAT.Traits()
	if err != nil {
		return own, public, err
	}
	s := l.sites[h.With]
	if s == nil {
		s, err = l.makeSite(i, h, t, shared)
		if s != nil {
			l.sites[h.Name] = s
		}
		if err != nil {
			return own, public, fmt.Errorf("router: %w", err)
		}
	}
	if t.Base == CGN {
		own, err = l.addHome(s, i, n)
	} else {
		own, err = s.join(n, hostName)
	}
	return own, outsideAddr(s.index), err
}

// HasDisk tells whether the processes have a Disk: it takes the right to mount, and the directory.
func (l *Lab) HasDisk() bool { return l.spawner.disk }

// Close kills every process of the lab, waits for them, and lets the namespaces go. A second call waits for the first.
// Sockets made inside Do stay usable for as long as they are open, and keep their namespace alive: close them.
func (l *Lab) Close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	if !first {
		<-l.done
		return nil
	}
	defer close(l.done)
	l.spawner.killAll()
	for _, p := range l.procs.all() {
		_ = p.Wait()
	}
	l.spawner.close()
	for _, s := range l.sites {
		if s.user != nil {
			s.user.close()
		}
	}
	l.closeLines()
	for _, n := range l.routers {
		n.close()
	}
	for _, n := range l.nodes {
		n.close()
	}
	if l.core != nil {
		l.core.close()
	}
	return nil
}

// Hosts returns the hosts in the order of the Spec.
func (l *Lab) Hosts() []HostInfo {
	l.hostsMu.RLock()
	defer l.hostsMu.RUnlock()
	return slices.Clone(l.hosts)
}

// Addr returns the host's own address, private if it is behind a NAT; the zero Addr if there is no such host.
func (l *Lab) Addr(host string) netip.Addr {
	h, _ := l.host(host)
	return h.Addr
}

// PublicAddr returns the outside address of the host's NAT, or its own if it is public; the zero Addr if there is no such host.
func (l *Lab) PublicAddr(host string) netip.Addr {
	h, _ := l.host(host)
	return h.PublicAddr
}

// Addr6 returns the host's IPv6 address, at which the internet of the lab sees it too; the zero Addr if it has none.
func (l *Lab) Addr6(host string) netip.Addr {
	h, _ := l.host(host)
	return h.Addr6
}

func (l *Lab) host(name string) (HostInfo, error) {
	hosts := l.Hosts()
	names := make([]string, 0, len(hosts))
	for _, h := range hosts {
		if h.Name == name {
			return h, nil
		}
		names = append(names, h.Name)
	}
	return HostInfo{}, fmt.Errorf("lab: no host %q: there are %s", name, strings.Join(names, ", "))
}

// Do runs fn inside the host's network namespace, on a thread of its own, and returns its error. Sockets that fn makes
// belong to the host for good and may be used anywhere. Goroutines that fn starts are outside (net.Dial with a
// host name starts some; with an IP address it does not); for processes use [Lab.Start].
func (l *Lab) Do(host string, fn func() error) error {
	if _, err := l.host(host); err != nil {
		return err
	}
	return onThread(func() error {
		if err := l.enter(host); err != nil {
			return err
		}
		return fn()
	})
}

// enter moves the calling thread into the host.
func (l *Lab) enter(host string) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return ErrClosed
	}
	if err := netns.Set(l.nodes[host].ns); err != nil {
		return fmt.Errorf("lab: enter %s: %w", host, err)
	}
	return nil
}

var errNoEnter = errors.New("lab: the program did not come to lab.Enter when started again: call it first thing in main or TestMain")
