package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fnwire/fnwire/experiments/lab/usernat"
	"github.com/fnwire/fnwire/internal/natsim"
)

const (
	tunName  = "nat"
	tunTable = 7    // routing table of what goes to the device
	tunQueue = 4096 // packets

	heldLeast, heldMost = 5 * time.Millisecond, 20 * time.Millisecond // see Reorder
	heldPackets         = 1024                                        // at most, at a time
)

// userNAT is a NAT for UDP outside of the kernel, for kinds that the kernel does not have. It reads and writes packets by a TUN
// device of its router, which routes to it UDP from both sides, and ICMP from outside that is not the kernel's own connections':
//
//	ip rule 10: iif wan udp -> nat     ip rule 11: iif lan udp -> nat     ip rule 12: iif wan icmp to PUBLIC -> nat
//
// What it writes takes the router's ordinary routes.
type userNAT struct {
	file *os.File
	wg   sync.WaitGroup

	held atomic.Int32 // packets, held back

	mu      sync.Mutex // guards what follows
	nat     *usernat.NAT
	reorder int        // percent of the packets are held back
	rand    *rand.Rand // says which and for how long
}

// startUserNAT starts a NAT in the namespace of the thread, which must have its interfaces, and ip_forward.
func startUserNAT(kind natsim.Kind, public netip.Addr, inside netip.Prefix, mtu int) (*userNAT, error) {
	f, err := openTUN(tunName)
	if err != nil {
		return nil, err
	}
	u := &userNAT{file: f, nat: usernat.New(usernat.Config{
		Kind: kind, Public: public, Inside: inside, Rand: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	})}
	if err := routeToTUN(public, mtu); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	u.wg.Go(u.run)
	return u, nil
}

func openTUN(name string) (*os.File, error) {
	const path = "/dev/net/tun"
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("%w: this kind of NAT needs %s, which this user may not open: as root, type: chmod 666 %s", ErrUnavailable, path, path)
	case err != nil:
		return nil, fmt.Errorf("%w: this kind of NAT needs %s (in a container, pass the device in): %w", ErrUnavailable, path, err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make TUN device: %w", err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// routeToTUN sets the device up and routes to it. The table of local addresses is consulted after it, since the outside address is one.
func routeToTUN(public netip.Addr, mtu int) error {
	link, err := netlink.LinkByName(tunName)
	if err != nil {
		return fmt.Errorf("find %s: %w", tunName, err)
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set MTU of %s: %w", tunName, err)
	}
	if err := netlink.LinkSetTxQLen(link, tunQueue); err != nil {
		return fmt.Errorf("set queue of %s: %w", tunName, err)
	}
	// What it writes may have the router's own outside address as its source.
	if err := (sysctl{"ipv4/conf/" + tunName + "/accept_local", "1", false}).set(); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", tunName, err)
	}
	if err := knowSelf(link); err != nil {
		return err
	}
	any4 := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	err = netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Table: tunTable, Dst: any4, Scope: netlink.SCOPE_LINK})
	if err != nil {
		return fmt.Errorf("route to %s: %w", tunName, err)
	}
	rule := func(priority, table int, set func(*netlink.Rule)) *netlink.Rule {
		r := netlink.NewRule()
		r.Family, r.Priority, r.Table = netlink.FAMILY_V4, priority, table
		set(r)
		return r
	}
	for _, r := range []*netlink.Rule{
		rule(10, tunTable, func(r *netlink.Rule) { r.IifName, r.IPProto = wanName, unix.IPPROTO_UDP }),
		rule(11, tunTable, func(r *netlink.Rule) { r.IifName, r.IPProto = lanName, unix.IPPROTO_UDP }),
		rule(12, tunTable, func(r *netlink.Rule) {
			r.IifName, r.IPProto = wanName, unix.IPPROTO_ICMP
			r.Dst = &net.IPNet{IP: public.AsSlice(), Mask: net.CIDRMask(32, 32)}
		}),
		rule(100, unix.RT_TABLE_LOCAL, func(*netlink.Rule) {}),
	} {
		if err := netlink.RuleAdd(r); err != nil {
			return fmt.Errorf("add routing rule %d: %w", r.Priority, err)
		}
	}
	if err := netlink.RuleDel(rule(0, unix.RT_TABLE_LOCAL, func(*netlink.Rule) {})); err != nil {
		return fmt.Errorf("move the rule of local addresses: %w", err)
	}
	return nil
}

// run carries packets until close.
func (u *userNAT) run() {
	buf := make([]byte, 1<<16)
	for {
		n, err := u.file.Read(buf)
		if err != nil {
			return
		}
		u.mu.Lock()
		pass := u.nat.Translate(time.Now(), buf[:n])
		var wait time.Duration
		if pass && u.reorder > 0 && u.rand.IntN(100) < u.reorder && u.held.Load() < heldPackets {
			wait = heldLeast + time.Duration(u.rand.Int64N(int64(heldMost-heldLeast)))
		}
		u.mu.Unlock()
		switch {
		case wait > 0:
			u.hold(slices.Clone(buf[:n]), wait)
		case pass:
			_, _ = u.file.Write(buf[:n]) // what the kernel does not take is lost, as on any wire
		}
	}
}

// hold sends a packet later. After close it is lost.
func (u *userNAT) hold(packet []byte, wait time.Duration) {
	u.held.Add(1)
	time.AfterFunc(wait, func() {
		defer u.held.Add(-1)
		_, _ = u.file.Write(packet)
	})
}

// setReorder has percent of the packets held back, which ones being the same for the same seed and packets.
func (u *userNAT) setReorder(percent int, seed uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reorder, u.rand = percent, rand.New(rand.NewPCG(seed, 0))
}

// forget drops all mappings.
func (u *userNAT) forget() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.nat.Forget()
}

func (u *userNAT) close() {
	_ = u.file.Close()
	u.wg.Wait()
}
