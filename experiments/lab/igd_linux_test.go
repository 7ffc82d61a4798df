package lab_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/internal/portmap"
)

// mapping is what the helper "portmap" tells.
type mapping struct {
	Addr  netip.AddrPort
	Error string
}

// mapPort keeps a mapping of port 4000 until SIGTERM, and prints what becomes of it.
func mapPort() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	out := json.NewEncoder(os.Stdout)
	portmap.Run(ctx, portmap.Config{
		Port:     4000,
		OnChange: func(a netip.AddrPort) { _ = out.Encode(mapping{Addr: a}) },
		OnError:  func(err error) { _ = out.Encode(mapping{Error: err.Error()}) },
	})
	return 0
}

// TestForwardPorts has a router's daemon, miniupnpd, forward ports by each of the protocols that package portmap speaks,
// and sends packets to them.
func TestForwardPorts(t *testing.T) {
	exe := labtest.Miniupnpd(t)
	cases := []struct {
		name, config string
		groupOnly    bool // searches are answered at the multicast group only
	}{
		{"IGD 2", "enable_natpmp=no\n", false},
		{"IGD 2 by multicast", "enable_natpmp=no\n", true},
		{"IGD 1", "enable_natpmp=no\nforce_igd_desc_v1=yes\n", false},
		{"PCP", "enable_natpmp=yes\nenable_upnp=no\n", false},
	}
	hosts := []lab.Host{{Name: "hub"}, {Name: "blocked", NAT: lab.UDPBlocked}}
	for i := range cases {
		hosts = append(hosts, lab.Host{Name: fmt.Sprint("h", i), NAT: lab.Symmetric})
	}
	l := labtest.New(t, hosts...)
	for i, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			host, public := fmt.Sprint("h", i), netip.AddrFrom4([4]byte{192, 30, 0, byte(1 + i)})
			if tt.groupOnly {
				mended(t, func() (func() error, error) { return l.DropSearches(host) })
			}
			labtest.StartMiniupnpd(t, l, host, exe, public, tt.config)
			inside, hub := listen(t, l, host, 4000), listen(t, l, "hub", 0)
			at, end := startMapping(t, l, host)
			if at.Addr() != public {
				t.Fatalf("mapped to %v, want a port of %v", at, public)
			}
			hub.send(at, "hello")
			inside.send(inside.want("hello"), "welcome")
			if from := hub.want("welcome"); from != at {
				t.Errorf("the answer came from %v, want %v", from, at)
			}
			end()
			other := listen(t, l, "hub", 0) // which the router's connection tracking does not know yet
			other.send(at, "again")
			if msg, _, ok := inside.recv(moment); ok {
				t.Errorf("%q came in by a mapping that was given back", msg)
			}
		})
	}
	for _, host := range []string{"hub", "blocked"} {
		if err := l.ForwardPorts(host, netip.MustParseAddr("192.30.0.99")); err == nil {
			t.Errorf("the NAT of %s forwards ports", host)
		}
	}
}

// startMapping starts the helper, and returns where the router forwards to it and how to end it.
func startMapping(t *testing.T, l *lab.Lab, host string) (at netip.AddrPort, end func()) {
	t.Helper()
	cmd := helper("portmap")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout = w
	p, err := l.Start(t.Context(), host, cmd)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(r)
	line, err := lines.ReadString('\n')
	var m mapping
	if err == nil {
		err = json.Unmarshal([]byte(line), &m)
	}
	if err != nil || m.Error != "" {
		t.Fatalf("%s, %v", strings.TrimSpace(line), err)
	}
	return m.Addr, func() {
		t.Helper()
		if err := p.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
	}
}
