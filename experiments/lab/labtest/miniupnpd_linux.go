package labtest

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
)

// Miniupnpd finds the daemon by which routers forward ports on request. Without it the test is skipped, or fails if in CI.
func Miniupnpd(t testing.TB) string {
	t.Helper()
	exe, err := exec.LookPath("miniupnpd")
	if err != nil {
		exe, err = exec.LookPath("/usr/sbin/miniupnpd")
	}
	if err != nil {
		const remedy = "no miniupnpd: install it with: apt-get install miniupnpd-nftables"
		if inCI() {
			t.Fatal(remedy)
		}
		t.Skip(remedy)
	}
	return exe
}

// StartMiniupnpd starts exe in a host's router, with public as its outside address and more lines of configuration, and waits until
// it answers. What lab.ForwardPorts says of public holds here too. It ends with the test.
func StartMiniupnpd(t testing.TB, l *lab.Lab, host, exe string, public netip.Addr, config string) {
	t.Helper()
	if err := l.ForwardPorts(host, public); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "conf")
	config += fmt.Sprintf("ext_ifname=wan\next_ip=%v\nlistening_ip=lan\nipv6_disable=yes\nsecure_mode=yes\n"+
		"uuid=00000000-0000-0000-0000-000000000001\n", public)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	out := &watched{want: "istening ", seen: make(chan struct{})}
	cmd := exec.Command(exe, "-d", "-f", file, "-P", filepath.Join(dir, "pid"))
	cmd.Stdout, cmd.Stderr = out, out
	p, err := l.StartRouter(t.Context(), host, cmd) // whose context ends before Cleanup
	if err != nil {
		t.Fatal(err)
	}
	var end error // valid once ended is closed
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		end = p.Wait()
	}()
	t.Cleanup(func() {
		<-ended
		if t.Failed() {
			t.Logf("miniupnpd in the router of %s:\n%s", host, out)
		}
	})
	select {
	case <-out.seen:
	case <-ended:
		t.Fatalf("miniupnpd: %v", end)
	case <-time.After(10 * time.Second):
		t.Fatal("miniupnpd does not listen")
	}
}

// watched keeps what is written, and closes seen once that holds what is wanted.
type watched struct {
	want string
	seen chan struct{}

	mu   sync.Mutex // guards text and told
	text strings.Builder
	told bool
}

var _ io.Writer = (*watched)(nil)

func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(b)
	if !w.told && strings.Contains(w.text.String(), w.want) {
		w.told = true
		close(w.seen)
	}
	return len(b), nil
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}
