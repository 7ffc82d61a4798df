package portmap

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
)

// bomb grows to 10^9 bytes where entities are expanded.
var bomb = `<?xml version="1.0"?><!DOCTYPE root [<!ENTITY a "0123456789">` + func() (s string) {
	for i := range 8 {
		s += fmt.Sprintf(`<!ENTITY %c %q>`, 'b'+i, strings.Repeat(fmt.Sprintf("&%c;", 'a'+i), 10))
	}
	return s
}() + `]><root><URLBase>&i;</URLBase></root>`

func write(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(s)) }
}

// endless writes until nobody reads.
func endless(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write([]byte(s)); err != nil {
				return
			}
		}
	}
}

// TestHostileRouters holds that no answer of a router, or of who passes for one, makes the client ask elsewhere, use more
// than is due, or tell of an address that is of no use.
func TestHostileRouters(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int32 // requests to who is not the router
	victim := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	victim.Listener.Close()
	victim.Listener = listen(t, "127.0.0.2:0")
	victim.Start()
	defer victim.Close()

	for name, tt := range map[string]struct {
		device *device
		want   string
	}{
		"location elsewhere":    {&device{location: victim.URL}, ErrSilent.Error()},
		"control URL elsewhere": {&device{control: victim.URL}, "at its own address"},
		"control URL, no host":  {&device{control: "http:///ctl"}, "at its own address"},
		"base elsewhere":        {&device{base: victim.URL}, "points elsewhere"},
		"redirection":           {&device{handler: http.RedirectHandler(victim.URL, http.StatusFound).ServeHTTP}, "HTTP status 302"},
		"endless body":          {&device{handler: endless("<root>")}, "more than 65536 bytes"},
		"endless spaces":        {&device{handler: endless(strings.Repeat(" ", 1000))}, "more than 65536 bytes"},
		"endless header": {&device{handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}}, "more than 65536 bytes"},
		"a bomb":           {&device{handler: write(bomb)}, "document type"},
		"unknown entities": {&device{handler: write("<root>&a;</root>")}, "invalid character entity"},
		"too deep":         {&device{handler: write(strings.Repeat("<device>", 5000))}, "too deep"},
		"no XML":           {&device{handler: write("<html><br></html>")}, "the router's description"},
		"nothing":          {&device{handler: write("")}, "the router's description"},

		"behind another NAT":       {&device{external: "192.168.1.2"}, "no use outside"},
		"behind a carrier's NAT":   {&device{external: "100.64.0.9"}, "no use outside"},
		"DS-Lite":                  {&device{external: "192.0.0.2"}, "no use outside"},
		"loopback":                 {&device{external: "127.0.0.1"}, "no use outside"},
		"broadcast":                {&device{external: "255.255.255.255"}, "no use outside"},
		"the address is no number": {&device{external: "example.org"}, "no use outside"},
		"an IPv6 address":          {&device{external: "2001:db8::1"}, "no use outside"},
		"refused":                  {&device{kinds: []string{wanIP1}, same: true, taken: map[string]bool{"4000": true}}, "the port is another's"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, tt.device)
			c := &client{cfg: d.config()}
			loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
			got, err := c.upnp(t.Context(), netip.AddrPortFrom(loopback, c.cfg.SSDP), loopback, lifetime)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v, %v, want %q", got, err, tt.want)
			}
			if _, mapped := d.state(); len(mapped) != 0 {
				t.Errorf("mapped %v", mapped)
			}
		})
	}
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

// TestSlowRouter holds that one that accepts connections and then says nothing holds up nobody.
func TestSlowRouter(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	d := newDevice(t, &device{handler: func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}})
	cfg := d.config()
	cfg.OnChange = func(a netip.AddrPort) { t.Errorf("told of %v", a) }
	Run(ctx, cfg)
}
