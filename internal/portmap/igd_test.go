package portmap

import (
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// device is a router that speaks UPnP, on loopback: it answers searches, and what it serves is its description and
// the actions of one connection. (experiments/lab has tests with a real one.)
type device struct {
	kinds    []string // of its connections; the first is offline if there is another
	external string
	oldOnly  bool             // no leases
	same     bool             // external ports must be internal ones
	taken    map[string]bool  // external ports of others
	handler  http.HandlerFunc // instead of all that it serves
	location string           // instead of where its description is
	control  string           // instead of "/ctl"
	base     string           // URLBase

	ssdp *net.UDPConn
	wg   sync.WaitGroup

	mu     sync.Mutex // guards what follows
	web    *httptest.Server
	calls  []string
	mapped map[string]string // external port to client, port and lease
}

func newDevice(t *testing.T, d *device) *device {
	t.Helper()
	if d.kinds == nil {
		d.kinds = []string{wanIP2}
	}
	if d.external == "" {
		d.external = public.String()
	}
	d.mapped = map[string]string{}
	var err error
	if d.ssdp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	d.serve()
	d.wg.Go(d.answerSearches)
	t.Cleanup(func() {
		_ = d.ssdp.Close()
		d.wg.Wait()
		d.web.Close()
	})
	return d
}

// serve serves at a port that is another each time.
func (d *device) serve() {
	handler := d.handler
	if handler == nil {
		handler = d.handle
	}
	web := httptest.NewServer(handler)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.web != nil {
		d.web.Close()
	}
	d.web = web
}

func (d *device) answerSearches() {
	buf := make([]byte, 2000)
	other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}) // from which some answer
	if err != nil {
		return
	}
	defer other.Close()
	for {
		n, from, err := d.ssdp.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		d.mu.Lock()
		at := d.web.URL + "/desc.xml"
		d.mu.Unlock()
		if d.location != "" {
			at = d.location
		}
		_, target, _ := strings.Cut(string(buf[:n]), "\r\nST: ")
		target, _, _ = strings.Cut(target, "\r\n")
		answer := "HTTP/1.1 200 OK\r\nCache-Control: max-age=120\r\nst:" + target + "\r\nLocation: " + at + "\r\nOPT: \"x\"; ns=01\r\n\r\n"
		_, _ = d.ssdp.WriteToUDPAddrPort([]byte("NOTIFY * HTTP/1.1\r\n\r\n"), from) // of no use
		_, _ = other.WriteToUDPAddrPort([]byte(answer), from)
	}
}

func (d *device) handle(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/desc.xml" {
		fmt.Fprint(w, d.description())
		return
	}
	action, body := d.action(r)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, action)
	answer, code := d.act(r.URL.Path, action, body)
	if code != 0 {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>s:Client</faultcode>`+
			`<faultstring>UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>%d</errorCode>`+
			`</UPnPError></detail></s:Fault></s:Body></s:Envelope>`, code)
		return
	}
	fmt.Fprintf(w, ` <?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>`+
		`<u:%[1]sResponse xmlns:u="x">%[2]s</u:%[1]sResponse></s:Body></s:Envelope>`, action, answer)
}

func (d *device) description() string {
	var services strings.Builder
	for i, kind := range d.kinds {
		control := d.control
		if control == "" {
			control = fmt.Sprint("/ctl/", i)
		}
		fmt.Fprintf(&services, "<service><serviceType>%s</serviceType><controlURL>%s</controlURL></service>", kind, control)
	}
	return `<?xml version="1.0" encoding="ISO-8859-1"?><root xmlns="urn:schemas-upnp-org:device-1-0"><URLBase>` + d.base + `</URLBase><device>` +
		"<friendlyName>Fr\xe9d\xe9ric</friendlyName><deviceList><device><deviceList><device><serviceList>" + services.String() +
		`</serviceList></device></deviceList></device></deviceList></device></root>`
}

// action reads a call as strictly as the strictest of routers.
func (d *device) action(r *http.Request) (string, map[string]string) {
	var call struct {
		Body struct {
			Action struct {
				XMLName xml.Name
				Args    []struct {
					XMLName xml.Name
					Value   string `xml:",chardata"`
				} `xml:",any"`
			} `xml:",any"`
		} `xml:"http://schemas.xmlsoap.org/soap/envelope/ Body"`
	}
	all, err := io.ReadAll(r.Body)
	if err == nil {
		err = xml.Unmarshal(all, &call)
	}
	name := call.Body.Action.XMLName
	if want := `"` + name.Space + "#" + name.Local + `"`; err != nil || r.Method != http.MethodPost || r.Header.Get("SOAPAction") != want ||
		!slices.Contains(d.kinds, name.Space) {
		return "bad call", nil
	}
	args := map[string]string{}
	for _, a := range call.Body.Action.Args {
		args[a.XMLName.Local] = a.Value
	}
	return name.Local, args
}

func (d *device) act(path, action string, args map[string]string) (answer string, code int) {
	port := args["NewExternalPort"]
	_, lease, _ := strings.Cut(d.mapped[port], " ")
	switch action {
	case "GetExternalIPAddress":
		if path == "/ctl/0" && len(d.kinds) > 1 {
			return "<NewExternalIPAddress></NewExternalIPAddress>", 0
		}
		return "<NewExternalIPAddress>" + d.external + "</NewExternalIPAddress>", 0
	case "AddPortMapping", "AddAnyPortMapping":
		switch {
		case args["NewProtocol"] != "UDP" || args["NewEnabled"] != "1" || args["NewInternalClient"] != "127.0.0.1":
			return "", 402
		case action == "AddAnyPortMapping" && d.kinds[0] != wanIP2:
			return "", upnpInvalidAction
		case d.oldOnly && args["NewLeaseDuration"] != "0":
			return "", upnpPermanentOnly
		case d.same && port != args["NewInternalPort"]:
			return "", upnpSamePorts
		case d.taken[port] && action == "AddPortMapping":
			return "", upnpConflict
		case d.taken[port]:
			port = "5555"
		}
		d.mapped[port] = args["NewInternalPort"] + " " + args["NewLeaseDuration"]
		if action == "AddAnyPortMapping" {
			return "<NewReservedPort>" + port + "</NewReservedPort>", 0
		}
		return "", 0
	case "DeletePortMapping":
		if lease == "" {
			return "", 714
		}
		delete(d.mapped, port)
		return "", 0
	}
	return "", upnpInvalidAction
}

// state is what the device has been told to do, and what is mapped.
func (d *device) state() (calls []string, mapped map[string]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls), maps.Clone(d.mapped)
}

// config is one for a client of the device, which speaks nothing but UPnP.
func (d *device) config() Config {
	return Config{
		Port: 4000, Gateway: netip.MustParseAddrPort("127.0.0.1:1"), // where nobody is
		SSDP: d.ssdp.LocalAddr().(*net.UDPAddr).AddrPort().Port(),
	}
}

// TestUPnP holds that a port is asked for, told of, and given back.
func TestUPnP(t *testing.T) {
	for name, tt := range map[string]struct {
		device *device
		port   uint16 // the external one; 0 is any
		mapped string
		calls  []string
	}{
		"IGD 2":                    {&device{}, 4000, "4000 600", []string{"AddAnyPortMapping"}},
		"IGD 2, the port is taken": {&device{taken: map[string]bool{"4000": true}}, 5555, "4000 600", []string{"AddAnyPortMapping"}},
		"IGD 1":                    {&device{kinds: []string{wanIP1}}, 4000, "4000 600", []string{"AddPortMapping"}},
		"IGD 1, the port is taken": {&device{kinds: []string{wanIP1}, taken: map[string]bool{"4000": true}}, 0, "4000 600",
			[]string{"AddPortMapping", "AddPortMapping"}},
		"IGD 1, no leases": {&device{kinds: []string{wanIP1}, oldOnly: true}, 4000, "4000 0", []string{"AddPortMapping", "AddPortMapping"}},
		"PPP": {&device{kinds: []string{wanIP1, wanPPP}}, 4000, "4000 600",
			[]string{"GetExternalIPAddress", "AddPortMapping"}}, // the first connection is offline
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDevice(t, tt.device)
			ctx, cancel := context.WithCancel(t.Context())
			told, done := make(chan netip.AddrPort, 1), make(chan struct{})
			cfg := d.config()
			cfg.OnChange, cfg.OnError = func(a netip.AddrPort) { told <- a }, func(err error) { t.Error(err); cancel() }
			go func() {
				defer close(done)
				Run(ctx, cfg)
			}()
			select {
			case got := <-told:
				if got.Addr() != public || tt.port != 0 && got.Port() != tt.port {
					t.Errorf("told of %v, want port %d", got, tt.port)
				}
				if _, mapped := d.state(); len(mapped) != 1 || mapped[strconv.Itoa(int(got.Port()))] != tt.mapped {
					t.Errorf("mapped %v, told of %v", mapped, got)
				}
			case <-done:
			}
			cancel()
			<-done
			calls, mapped := d.state()
			if want := slices.Concat([]string{"GetExternalIPAddress"}, tt.calls, []string{"DeletePortMapping"}); !slices.Equal(calls, want) {
				t.Errorf("calls %q, want %q", calls, want)
			}
			if len(mapped) != 0 {
				t.Errorf("left behind: %v", mapped)
			}
		})
	}
}

// TestUPnPRenews holds that a mapping is renewed without another search, at the same port; after one if the router has been
// restarted, forgot all, and serves elsewhere; and that the loss of the router is told.
func TestUPnPRenews(t *testing.T) {
	t.Parallel()
	d := newDevice(t, &device{same: true})
	c := &client{cfg: d.config()}
	for i := range 3 {
		got, err := c.ask(t.Context(), lifetime)
		if err != nil || got.external != netip.AddrPortFrom(public, 4000) || got.lifetime != lifetime {
			t.Fatalf("%+v, %v", got, err)
		}
		c.have = got.external
		calls, mapped := d.state()
		if len(calls) != 2*(i+1) || len(mapped) != 1 {
			t.Errorf("calls %q, mapped %v", calls, mapped)
		}
		if i == 1 {
			d.mu.Lock()
			clear(d.mapped)
			d.mu.Unlock()
			d.serve()
		}
	}
	_ = d.ssdp.Close()
	d.web.Close()
	if got, err := c.ask(t.Context(), lifetime); err == nil || c.igd != nil {
		t.Errorf("%+v of a router that is gone", got)
	}
}

// TestUPnPClosing holds that what was not mapped by UPnP is not ended, let alone mapped, by it.
func TestUPnPClosing(t *testing.T) {
	d := newDevice(t, &device{})
	c := &client{cfg: d.config(), have: netip.AddrPortFrom(public, 4000)}
	_, err := c.ask(t.Context(), 0)
	if calls, _ := d.state(); err == nil || len(calls) != 0 {
		t.Errorf("%v, calls %q", err, calls)
	}
}
