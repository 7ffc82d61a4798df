package portmap

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/internal/hostile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	public = netip.MustParseAddr("198.51.100.7")
	own    = nonce{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
)

// The layouts of RFC 6887, 11.1 and RFC 6886, 3.
func TestGolden(t *testing.T) {
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"PCP": {
			appendPCP(nil, netip.MustParseAddr("10.2.0.2"), own, 4000, netip.AddrPortFrom(public, 5000), 600*time.Second),
			"0201000000000258" + "00000000000000000000ffff0a020002" + "0102030405060708090a0b0c" + "11000000" + "0fa0" + "1388" + "00000000000000000000ffffc6336407",
		},
		"PCP, nothing suggested": {
			appendPCP(nil, netip.MustParseAddr("10.2.0.2"), own, 4000, netip.AddrPort{}, 0),
			"0201000000000000" + "00000000000000000000ffff0a020002" + "0102030405060708090a0b0c" + "11000000" + "0fa0" + "0000" + "00000000000000000000ffff00000000",
		},
		"NAT-PMP address": {appendPMPAddr(nil), "0000"},
		"NAT-PMP mapping": {appendPMPMap(nil, 4000, 5000, 600*time.Second), "00010000" + "0fa0" + "1388" + "00000258"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

// router is one that speaks PCP, or NAT-PMP only, on loopback.
type router struct {
	conn *net.UDPConn
	pmp  bool
	give netip.AddrPort
	code byte
	wg   sync.WaitGroup

	mu    sync.Mutex // guards what follows
	asked []time.Duration
	deaf  int // requests to leave without answer
}

func newRouter(t *testing.T, r *router) *router {
	t.Helper()
	var err error
	if r.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	r.wg.Go(func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := r.conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if answer := r.answer(buf[:n]); answer != nil {
				_, _ = r.conn.WriteToUDPAddrPort([]byte{9}, from) // of no kind that is known
				_, _ = r.conn.WriteToUDPAddrPort(answer, from)
			}
		}
	})
	t.Cleanup(func() { _ = r.conn.Close(); r.wg.Wait() })
	return r
}

func (r *router) answer(b []byte) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.deaf > 0 {
		r.deaf--
		return nil
	}
	seconds := func(at int) time.Duration { return time.Duration(binary.BigEndian.Uint32(b[at:])) * time.Second }
	switch {
	case b[0] == pcpVersion && r.pmp:
		return []byte{0, opMap | opResponse, 0, resultVersion, 0, 0, 0, 1}
	case b[0] == pcpVersion:
		r.asked = append(r.asked, seconds(4))
		out := append([]byte(nil), b...)
		out[1] |= opResponse
		out[3] = r.code
		binary.BigEndian.PutUint16(out[42:], r.give.Port())
		ip := r.give.Addr().As16()
		copy(out[44:], ip[:])
		return out
	case b[1] == 0:
		ip := r.give.Addr().As4()
		return append([]byte{0, opResponse, 0, 0, 0, 0, 0, 1}, ip[:]...)
	}
	r.asked = append(r.asked, seconds(8))
	out := append([]byte{0, opMap | opResponse, 0, r.code, 0, 0, 0, 1}, b[4:6]...)
	out = binary.BigEndian.AppendUint16(out, r.give.Port())
	return append(out, b[8:12]...)
}

func (r *router) lifetimes() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// TestRun holds that a port is asked for, told of, and given back.
func TestRun(t *testing.T) {
	given := netip.AddrPortFrom(public, 5000)
	for name, r := range map[string]*router{
		"PCP": {give: given}, "PCP, the first request is lost": {give: given, deaf: 1}, "NAT-PMP": {give: given, pmp: true},
	} {
		t.Run(name, func(t *testing.T) {
			r = newRouter(t, r)
			ctx, cancel := context.WithCancel(t.Context())
			told, done, again := make(chan netip.AddrPort, 1), make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				Run(ctx, Config{
					Port: 4000, Gateway: r.conn.LocalAddr().(*net.UDPAddr).AddrPort(), Again: again,
					OnChange: func(a netip.AddrPort) { told <- a }, OnError: func(err error) { t.Error(err) },
				})
			}()
			if got := <-told; got != given {
				t.Errorf("told of %v", got)
			}
			other := netip.AddrPortFrom(public, 5001)
			r.mu.Lock()
			r.give = other
			r.mu.Unlock()
			again <- struct{}{}
			if got := <-told; got != other {
				t.Errorf("told of %v when asked again", got)
			}
			cancel()
			<-done
			if got := r.lifetimes(); !slices.Equal(got, []time.Duration{lifetime, lifetime, 0}) {
				t.Errorf("asked for %v, want a mapping twice and its end", got)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		router *router
		want   string
	}{
		"refused":             {&router{give: netip.AddrPortFrom(public, 1), code: 2}, "not authorized"},
		"refused by NAT-PMP":  {&router{give: netip.AddrPortFrom(public, 1), code: 4, pmp: true}, "no resources"},
		"behind another NAT":  {&router{give: netip.MustParseAddrPort("10.0.0.9:1")}, "no use outside"},
		"a carrier's NAT":     {&router{give: netip.MustParseAddrPort("100.64.0.9:1")}, "no use outside"},
		"no port":             {&router{give: netip.AddrPortFrom(public, 0)}, "no use outside"},
		"the address is none": {&router{give: netip.MustParseAddrPort("0.0.0.0:9")}, "no use outside"},
		"deaf":                {&router{give: netip.AddrPortFrom(public, 1), deaf: 100}, ErrSilent.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRouter(t, tt.router)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			Run(ctx, Config{
				Port: 4000, Gateway: r.conn.LocalAddr().(*net.UDPAddr).AddrPort(),
				OnChange: func(a netip.AddrPort) { t.Errorf("told of %v", a) },
				OnError: func(err error) {
					if !strings.Contains(err.Error(), tt.want) {
						t.Errorf("%v, want %q", err, tt.want)
					}
					cancel()
				},
			})
		})
	}
}

const routes = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth1	00000000	0102000A	0003	0	0	100	00000000	0	0	0
eth0	00000000	0101000A	0003	0	0	50	00000000	0	0	0
eth0	0001000A	00000000	0001	0	0	0	00FFFFFF	0	0	0
`

func TestRoutes(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the table is that of a little-endian machine")
	}
	if got, err := parseRoutes(strings.NewReader(routes)); err != nil || got != netip.MustParseAddr("10.0.1.1") {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := parseRoutes(strings.NewReader("")); !errors.Is(err, errGateway) {
		t.Errorf("%v", err)
	}
}

func FuzzRoutes(f *testing.F) {
	for _, s := range hostile.Strings(routes, "a 00000000 x 3 0 0 1 00000000\n") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := parseRoutes(strings.NewReader(s)); (err == nil) != a.Is4() {
			t.Errorf("%v, %v", a, err)
		}
	})
}

func FuzzAnswers(f *testing.F) {
	r := router{give: netip.AddrPortFrom(public, 5000)}
	for _, b := range hostile.Of(
		r.answer(appendPCP(nil, public, own, 4000, netip.AddrPort{}, lifetime)),
		r.answer(appendPMPMap(nil, 4000, 0, lifetime)),
		r.answer(appendPMPAddr(nil)),
		[]byte{0, 129, 0, 1},
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := parsePCP(b, own, 4000); err == nil && (a.lifetime < 0 || len(b) < pcpSize) {
			t.Errorf("%+v from %x", a, b)
		}
		if _, life, err := parsePMPMap(b, 4000); err == nil && (life < 0 || len(b) < pmpMapSize) {
			t.Errorf("%v from %x", life, b)
		}
		if a, err := parsePMPAddr(b); err == nil && !a.Is4() {
			t.Errorf("%v from %x", a, b)
		}
	})
}
