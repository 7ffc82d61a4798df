package fnlib_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/proxy/proxytest"
	relay "github.com/fnwire/fnwire/relay/server"
	"github.com/fnwire/fnwire/rendezvous"
)

const proxiedState = 4 << 20

// proxiedProcess is this test binary as a function of its own: "in" takes a state, all others send it one.
func proxiedProcess(name string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	err := func() error {
		cfg := fnlib.FromEnv()
		cfg.Name, cfg.Listen, cfg.NoIPv6 = name, loopbackAny, true
		n, err := fnlib.Join(ctx, cfg)
		if err != nil {
			return err
		}
		defer n.Close()
		for _, r := range n.Relays() {
			fmt.Println("relay", r.ID, r.Via)
		}
		if name != "in" {
			r, err := n.SendWith(ctx, "in", "state", strings.NewReader(strings.Repeat("x", proxiedState)), fnlib.SendOptions{Path: fnlib.RelayOnly})
			fmt.Println("sent by", r.Path)
			return err
		}
		in, err := n.Receive(ctx)
		if err != nil {
			return err
		}
		got, err := io.Copy(io.Discard, in)
		fmt.Println("received", got)
		if err != nil {
			return err
		}
		return in.Accept()
	}()
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}

// Two functions whose network lets nothing out but CONNECT by an HTTP proxy, which alone can resolve names: rendezvous and relay
// are reached by it, as the environment says, and a state is handed over.
func TestHTTPProxyAlone(t *testing.T) {
	w := &world{key: job.NewKey(), webSocket: "127.0.0.1:0"}
	w.startRendezvous(t, "127.0.0.1:0")
	s, err := relay.New(relay.Config{ID: "r1", Listen: loopbackAny, HTTPS: loopbackAny, TokenKey: w.rdv.TokenKey, Logger: logger()})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s.Run, s.Ready())
	nobody := netip.MustParseAddrPort("192.0.2.1:3478") // TEST-NET-1
	if err := w.rdv.AddRelay(rendezvous.RelayInfo{
		ID: "r1", Addr: nobody, STUN: []netip.AddrPort{nobody}, HTTPS: "relay.test:443", CertSHA256: s.CertSHA256(),
	}); err != nil {
		t.Fatal(err)
	}
	p := proxytest.Start(t, map[string]string{
		"rendezvous.test:80": strings.TrimPrefix(w.rdv.WebSocketURL(), "ws://"), "relay.test:443": s.HTTPSAddr().String(),
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	said := make(map[string]chan string)
	for _, name := range []string{"in", "out"} {
		cmd := exec.CommandContext(ctx, self)
		cmd.Env = append(os.Environ(), "FNWIRE_TEST_PROXIED="+name, fnlib.EnvURL+"=ws://rendezvous.test:80", fnlib.EnvJobKey+"="+w.key.Encode(),
			"HTTP_PROXY=http://"+p.Addr, "HTTPS_PROXY=http://u:p@"+p.Addr, "NO_PROXY=", "http_proxy=", "https_proxy=", "no_proxy=")
		out := make(chan string, 1)
		said[name] = out
		go func() {
			b, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			out <- string(b)
		}()
	}
	for name, want := range map[string]string{"in": fmt.Sprint("received ", proxiedState), "out": "sent by relay"} {
		if got := <-said[name]; !strings.Contains(got, want) || !strings.Contains(got, "relay r1 wss") {
			t.Errorf("%s says:\n%s", name, got)
		}
	}
	if a, b := p.Asked("rendezvous.test:80"), p.Asked("relay.test:443"); a != "none" || !strings.HasPrefix(b, "Basic ") {
		t.Errorf("the proxy was asked with %q for the rendezvous, with %q for the relay", a, b)
	}
}
