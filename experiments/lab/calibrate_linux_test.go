package lab_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
)

// behaviour is what a NAT does, in the terms of RFC 4787, as sockets of a host behind it and of two public hosts see it: the
// tests of RFC 5780 without its messages.
type behaviour struct {
	mapping, filtering string // what they depend on; "" if no UDP passes
	ports              string // preserved, in steps of N, or random
	hairpin            bool
	tcpOut, webOut     bool // to any port; to port 443
	tcpIn              bool
}

const (
	independent = "nothing"
	onAddress   = "address"
	onBoth      = "address and port"

	preserved = "preserved"
	random    = "random"
)

// Every kind is what its name says, and not only almost: a lab that lies is worse than none.
func TestCalibration(t *testing.T) {
	cone := behaviour{independent, independent, preserved, false, true, true, false}
	with := func(b behaviour, change func(*behaviour)) behaviour { change(&b); return b }
	address := with(cone, func(b *behaviour) { b.filtering = onAddress })
	port := with(cone, func(b *behaviour) { b.filtering = onBoth })
	symmetric := with(port, func(b *behaviour) { b.mapping, b.ports = onBoth, random })
	remap := func(b behaviour) behaviour { return with(b, func(b *behaviour) { b.ports = random }) }
	hairpin := func(b behaviour) behaviour { return with(b, func(b *behaviour) { b.hairpin = true }) }
	step := func(n int) behaviour {
		return with(symmetric, func(b *behaviour) { b.ports = fmt.Sprint("in steps of ", n) })
	}
	none := with(cone, func(b *behaviour) { b.hairpin, b.tcpIn = true, true })

	want := map[lab.Kind]behaviour{
		"none":                          none,
		"full-cone":                     cone,
		"full-cone+remap":               remap(cone),
		"full-cone+hairpin":             hairpin(cone),
		"address-restricted":            address,
		"address-restricted+remap":      remap(address),
		"port-restricted":               port,
		"port-restricted+remap":         remap(port),
		"port-restricted+hairpin":       hairpin(port),
		"port-restricted+remap+hairpin": hairpin(remap(port)),
		"port-restricted+mtu=1460":      port,
		"port-restricted+mtu=1280":      port,
		"port-restricted+timeout=10s":   port,
		"port-restricted+timeout=30s":   port,
		"address-restricted+mtu=1280":   address,
		"sequential":                    step(1),
		"sequential+step=3":             step(3),
		"sequential+step=-2":            step(-2),
		"symmetric":                     symmetric,
		"cgn":                           remap(port),
		"cgn+hairpin":                   hairpin(remap(port)),
		"ipv6-firewall":                 symmetric, // over IPv4
		"udp-blocked":                   {tcpOut: true, webOut: true},
		"https-only":                    {webOut: true},
	}
	for _, k := range lab.Kinds() {
		if _, ok := want[k]; !ok {
			t.Errorf("kind %s is not measured", k)
		}
	}
	for kind, want := range want {
		for _, company := range []string{"alone", "shared"} {
			if company == "shared" && (kind == lab.None || kind == lab.IPv6Firewall) {
				continue
			}
			t.Run(string(kind)+"/"+company, func(t *testing.T) {
				t.Parallel()
				hosts := []lab.Host{{Name: "x"}, {Name: "y"}, {Name: "h", NAT: kind}}
				if company == "shared" {
					hosts = append(hosts, lab.Host{Name: "neighbour", With: "h"})
				}
				if got := measure(t, labtest.New(t, hosts...)); got != want {
					t.Errorf("measured\n%+v, want\n%+v", got, want)
				}
			})
		}
	}
}

func measure(t *testing.T, l *lab.Lab) (b behaviour) {
	x, h := listen(t, l, "x", 0), listen(t, l, "h", 0)
	blocked := strings.Contains(t.Name(), "blocked") || strings.Contains(t.Name(), "only")
	within := patience
	if blocked {
		within = moment
	}
	h.send(at(l, "x", x), "hello")
	_, _, out := x.recv(within)
	x.send(at(l, "h", h), "hello") // to the outside address: where a punch would send
	if _, _, in := h.recv(moment); in && !out {
		t.Error("UDP comes in, though it does not go out")
	}
	if out {
		b.mapping, b.ports = measureMapping(t, l)
		b.filtering = measureFiltering(t, l)
		b.hairpin = measureHairpin(t, l)
	}
	b.tcpOut = tcpPasses(t, l, "h", "x", 0, patienceFor(!strings.Contains(t.Name(), "only")))
	b.webOut = tcpPasses(t, l, "h", "x", 443, patience)
	b.tcpIn = tcpPasses(t, l, "x", "h", 0, 300*time.Millisecond)
	return b
}

func patienceFor(expected bool) time.Duration {
	if expected {
		return patience
	}
	return 300 * time.Millisecond
}

// measureMapping sends from one socket to three places and compares the sources that they see.
func measureMapping(t *testing.T, l *lab.Lab) (dependsOn, ports string) {
	servers := []struct {
		host string
		sock sock
	}{{"x", listen(t, l, "x", 0)}, {"x", listen(t, l, "x", 0)}, {"y", listen(t, l, "y", 0)}}
	var seen []netip.AddrPort
	var steps []int
	kept := true
	for range 3 { // sockets, so that a port is not preserved by accident
		h := listen(t, l, "h", 0)
		for i, server := range servers {
			msg := fmt.Sprint(i)
			h.send(at(l, server.host, server.sock), msg)
			from := server.sock.want(msg)
			if from.Addr() != l.PublicAddr("h") {
				t.Errorf("packet from %v, want the outside address %v", from, l.PublicAddr("h"))
			}
			server.sock.send(from, "back "+msg)
			h.want("back " + msg)
			if len(seen) > 0 {
				const ports = 1<<16 - 1024 // the first follows on the last
				s := (int(from.Port()) - int(seen[len(seen)-1].Port()) + ports) % ports
				if s > ports/2 {
					s -= ports
				}
				steps = append(steps, s)
			}
			seen = append(seen, from)
		}
		kept = kept && seen[len(seen)-1].Port() == h.port()
	}
	switch {
	case seen[0] == seen[1] && seen[1] == seen[2]:
		dependsOn = independent
	case seen[0] == seen[1]:
		dependsOn = onAddress
	default:
		dependsOn = onBoth
	}
	switch {
	case kept:
		return dependsOn, preserved
	case slices.Min(steps) == slices.Max(steps):
		return dependsOn, fmt.Sprint("in steps of ", steps[0])
	}
	return dependsOn, random
}

// measureFiltering has a socket send to one place, and looks who else may answer.
func measureFiltering(t *testing.T, l *lab.Lab) (dependsOn string) {
	x1, x2, y := listen(t, l, "x", 0), listen(t, l, "x", 0), listen(t, l, "y", 0)
	h := listen(t, l, "h", 0)
	h.send(at(l, "x", x1), "open")
	mapped := x1.want("open")
	var in []string
	for i := range 3 { // should a packet be late, it shows in the next round
		y.send(mapped, "other address")
		x2.send(mapped, "other port")
		end := fmt.Sprint("end ", i)
		x1.send(mapped, end)
		in = append(in, h.until(end)...)
	}
	switch {
	case slices.Contains(in, "other address"):
		return independent
	case slices.Contains(in, "other port"):
		return onAddress
	}
	return onBoth
}

// measureHairpin has two sockets of the host, or one and one of its neighbour, send to each other's mapped address. Where the
// mapping depends on the far end nobody knows these; then a public host, which sees the mapped source, tells whether the packet went out.
func measureHairpin(t *testing.T, l *lab.Lab) bool {
	other := "h"
	if slices.ContainsFunc(l.Hosts(), func(h lab.HostInfo) bool { return h.Name == "neighbour" }) {
		other = "neighbour"
	}
	x, a, b := listen(t, l, "x", 0), listen(t, l, "h", 0), listen(t, l, other, 0)
	mapped := func(s sock) netip.AddrPort {
		s.send(at(l, "x", x), "who am I")
		return x.want("who am I")
	}
	atA, atB := mapped(a), mapped(b)
	for range 5 {
		a.send(atB, "hairpin")
		b.send(atA, "hairpin")
		if _, from, ok := b.recv(moment); ok {
			if from.Addr() != l.PublicAddr("h") {
				t.Errorf("the source of a hairpin is %v, want the outside address %v", from, l.PublicAddr("h"))
			}
			return true
		}
	}
	return false
}

// Mappings last as long as they should, and no longer.
func TestCalibrationTimeout(t *testing.T) {
	for kind, lasts := range map[lab.Kind]time.Duration{
		"port-restricted+timeout=2s":        2 * time.Second,
		"full-cone+remap+timeout=2s":        2 * time.Second,
		"sequential+timeout=2s":             2 * time.Second,
		"cgn+timeout=2s":                    2 * time.Second,
		"port-restricted+remap+timeout=10s": 10 * time.Second,
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			l := labtest.New(t, lab.Host{Name: "x"}, lab.Host{Name: "h", NAT: kind})
			x, h := listen(t, l, "x", 0), listen(t, l, "h", 0)
			h.send(at(l, "x", x), "open")
			mapped := x.want("open")
			time.Sleep(lasts * 3 / 4)
			began := time.Now()
			h.send(at(l, "x", x), "keep")
			if from := x.want("keep"); from != mapped && time.Since(began) < lasts/4 {
				t.Errorf("mapped to %v within the time, %v before", from, mapped)
			}
			time.Sleep(lasts * 3 / 4)
			x.send(mapped, "within")
			if _, _, ok := h.recv(patienceFor(true) / 10); !ok && time.Since(began) < lasts {
				t.Errorf("the mapping was lost after %v", time.Since(began))
			}
			time.Sleep(time.Until(began.Add(lasts + lasts/4)))
			x.send(mapped, "beyond")
			if msg, _, ok := h.recv(2 * moment); ok {
				t.Errorf("received %q %v after the last packet out", msg, time.Since(began))
			}
			h.send(at(l, "x", x), "again")
			if from := x.want("again"); from == mapped && !strings.HasPrefix(string(kind), "port-restricted+t") {
				t.Errorf("the port is %v again, as if the mapping had lasted", from)
			}
		})
	}
}

// Packets of a line's size pass both ways, and larger ones never, single or in batches; their senders are told.
func TestCalibrationMTU(t *testing.T) {
	for kind, size := range map[lab.Kind]int{
		"port-restricted":             1500,
		"port-restricted+mtu=1460":    1460,
		"port-restricted+mtu=1280":    1280,
		"address-restricted+mtu=1280": 1280,
		"symmetric+mtu=1400":          1400,
		"cgn+mtu=1300":                1300,
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			l := labtest.New(t, lab.Host{Name: "x"}, lab.Host{Name: "h", NAT: kind})
			x, h := listen(t, l, "x", 0), listen(t, l, "h", 0)
			atX := at(l, "x", x)
			h.send(atX, "open")
			mapped := x.want("open")
			discover := func(how int) {
				for _, s := range []sock{x, h} {
					s.control(func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, how) })
				}
			}
			discover(unix.IP_PMTUDISC_PROBE)
			if size < 1500 {
				x.sendBatch(t, mapped, size-28+1, 3)
				h.sendBatch(t, atX, size-28+1, 3)
			}
			discover(unix.IP_PMTUDISC_DO)
			for _, way := range []struct {
				from, to sock
				addr     netip.AddrPort
			}{{h, x, atX}, {x, h, mapped}} {
				way.from.sendBatch(t, way.addr, size-28, 3)
				for range 3 {
					if msg, _, ok := way.to.recv(patience); !ok || len(msg) != size-28 {
						t.Fatalf("received %d bytes (%v), want %d", len(msg)+28, ok, size)
					}
				}
				told := false
				for until := time.Now().Add(patience); !told && time.Now().Before(until); time.Sleep(time.Millisecond) {
					_, err := way.from.WriteToUDPAddrPort(make([]byte, size-28+1), way.addr)
					told = errors.Is(err, unix.EMSGSIZE)
				}
				if !told {
					t.Errorf("packets of %d bytes are sent on and on", size+1)
				}
				way.from.send(way.addr, "end")
				if before := way.to.until("end"); len(before) > 0 {
					t.Errorf("received %d bytes in one packet on a line of %d", len(before[0])+28, size)
				}
			}
		})
	}
}

// sendBatch sends a few packets of a size with one call, as one batch all the way unless something takes it apart.
func (s sock) sendBatch(t *testing.T, to netip.AddrPort, size, count int) {
	t.Helper()
	_, _, err := s.WriteMsgUDPAddrPort(make([]byte, size*count), segmentSize(size), to)
	if err != nil && !errors.Is(err, unix.EMSGSIZE) {
		t.Fatal(err)
	}
}

// Who sends to a port that nobody listens at learns it through every NAT.
func TestCalibrationICMP(t *testing.T) {
	for _, kind := range []lab.Kind{lab.PortRestricted, lab.AddressRestricted, lab.Sequential, lab.CGN} {
		l := labtest.New(t, lab.Host{Name: "x"}, lab.Host{Name: "h", NAT: kind})
		err := l.Do("h", func() error {
			c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.Addr("x"), 9)))
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.Write([]byte("anybody?")); err != nil {
				return err
			}
			if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
				return err
			}
			_, err = c.Read(make([]byte, 1))
			return err
		})
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: %v, want ECONNREFUSED", kind, err)
		}
	}
}

// Over IPv6 there is no NAT; the firewall lets in only from where the host has sent to, and TCP not at all.
func TestCalibrationIPv6(t *testing.T) {
	kind := lab.IPv6Firewall
	l := labtest.New(t, lab.Host{Name: "x", NAT: kind}, lab.Host{Name: "y", NAT: kind}, lab.Host{Name: "h", NAT: kind})
	open := func(host string) sock {
		var c *net.UDPConn
		err := l.Do(host, func() (err error) {
			c, err = net.ListenUDP("udp6", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv6Unspecified(), 0)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return sock{c, t}
	}
	x1, x2, y, h := open("x"), open("x"), open("y"), open("h")
	at := func(host string, s sock) netip.AddrPort { return netip.AddrPortFrom(l.Addr6(host), s.port()) }
	atH := at("h", h)
	for _, s := range []sock{x1, x2, y} { // which opens their own firewalls
		s.send(atH, "unsolicited")
	}
	h.send(at("x", x1), "open")
	if from := x1.want("open"); from != atH {
		t.Errorf("the source is %v, want %v: no NAT", from, atH)
	}
	x2.send(atH, "other port")
	y.send(atH, "other address")
	x1.send(atH, "answer")
	if before := h.until("answer"); len(before) > 0 {
		t.Errorf("received %q: the firewall lets in who was not sent to", before)
	}
	h.send(at("y", y), "open")
	y.want("open")
	y.send(atH, "now")
	h.want("now")

	x1.control(func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1) })
	x1.send(atH, string(make([]byte, 1500-48)))
	if msg, _, ok := h.recv(patience); !ok || len(msg) != 1500-48 {
		t.Errorf("received %d bytes (%v)", len(msg), ok)
	}
}

// What breaks in a NAT of the kernel's breaks in one of ours, or the lab says that it cannot do it.
func TestFaultsOfEveryKind(t *testing.T) {
	for _, kind := range []lab.Kind{"sequential", "cgn", "full-cone+remap", "port-restricted+mtu=1280"} {
		l := labtest.New(t, lab.Host{Name: "x"}, lab.Host{Name: "h", NAT: kind}, lab.Host{Name: "neighbour", With: "h"})
		x, h := listen(t, l, "x", 0), listen(t, l, "h", 0)
		h.send(at(l, "x", x), "open")
		mapped := x.want("open")
		if err := l.RebootNAT("neighbour"); err != nil {
			t.Fatal(err)
		}
		x.send(mapped, "gone?")
		if msg, _, ok := h.recv(moment); ok {
			t.Errorf("%s: received %q after the reboot", kind, msg)
		}
		if _, err := l.ChangePublicAddr("h"); err == nil || !strings.Contains(err.Error(), string(kind)) {
			t.Errorf("%s: change of the public address: %v", kind, err)
		}
		if _, err := l.ChangeAddr("neighbour"); err == nil {
			t.Errorf("%s: an address that others may have is taken", kind)
		}
	}
}
