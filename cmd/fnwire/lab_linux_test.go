package main

import (
	"bytes"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/internal/cli"
)

// inLab runs fnwire on a host of a lab.
func (env environment) inLab(t *testing.T, l *lab.Lab, host string, args ...string) *process {
	t.Helper()
	return env.launch(t, args, func(cmd *exec.Cmd) (handle, error) { return l.Start(t.Context(), host, cmd) })
}

// TestTunnelThroughNATs has git clone, and half-closed connections with 64 MiB both ways, go between two hosts
// behind NATs, directly and where there is no other way by the relay.
func TestTunnelThroughNATs(t *testing.T) {
	needGit(t)
	for _, tt := range []struct {
		a, b lab.Kind
		path string
	}{
		{lab.PortRestricted, lab.PortRestricted, "direct"},
		{lab.Symmetric, lab.Symmetric, "relay"},
	} {
		t.Run(string(tt.a), func(t *testing.T) {
			l := labtest.New(t, lab.Host{Name: "public"}, lab.Host{Name: "a", NAT: tt.a}, lab.Host{Name: "b", NAT: tt.b})
			public := l.Addr("public")
			dev := environment{}.inLab(t, l, "public", "dev", "--json",
				"--listen", netip.AddrPortFrom(public, 4222).String(), "--relay-listen", netip.AddrPortFrom(public, 3478).String())
			dev.await(&dev.out, "\n")
			var r devReport
			dev.decode(&dev.out, &r)
			env := environment{"FNWIRE_URL=" + r.URL, "FNWIRE_JOB_KEY=" + r.JobKey}

			root, head := makeRepository(t)
			web, files := listenIn(t, l, "b")
			serveHTTP(t, web, http.FileServer(http.Dir(root)))
			echoes, echoAddr := listenIn(t, l, "b")
			go func() { // ends with the listener
				for {
					c, err := echoes.Accept()
					if err != nil {
						return
					}
					go func() {
						echo(c.(*net.TCPConn))
						_ = c.Close() // mostly echo has sent its end
					}()
				}
			}()
			tunnel := func(service, target string) (addr string, expose, forward *process) {
				expose = env.inLab(t, l, "b", "expose", "--json", "--name", "b-"+service, "--service", service, target)
				forward = env.inLab(t, l, "a", "forward", "--json", "--name", "a-"+service, "--listen", "127.0.0.1:0", "--to", "b-"+service+":"+service)
				expose.await(&expose.out, "\n")
				forward.await(&forward.out, "\n")
				return forward.events()[0].Listen, expose, forward
			}
			addr, expose1, forward1 := tunnel("web", files)
			work := t.TempDir()
			began := time.Now()
			var out output
			clone := gitCommand(t.Context(), work, "clone", "http://"+addr+"/repo.git", "copy")
			clone.Stdout, clone.Stderr = &out, &out
			p, err := l.Start(testContext(t), "a", clone)
			if err == nil {
				err = p.Wait()
			}
			if err != nil {
				t.Fatalf("git clone: %v: %s", err, &out)
			}
			t.Logf("cloned in %v", time.Since(began).Round(time.Millisecond))
			wantClone(t, filepath.Join(work, "copy"), head)

			addr, expose2, forward2 := tunnel("echo", echoAddr)
			bulk := int64(64 << 20)
			if testing.Short() {
				bulk = 4 << 20
			}
			var c net.Conn
			if err := l.Do("a", func() (err error) { c, err = net.Dial("tcp", addr); return err }); err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(2 * patience))
			began = time.Now()
			var wrote, read []byte
			var n int64
			var both errgroup.Group
			both.Go(func() (err error) { wrote, err = pour(c.(*net.TCPConn), 1, bulk); return err })
			both.Go(func() (err error) { read, n, err = digestOf(c); return err })
			if err := both.Wait(); err != nil || n != bulk || !bytes.Equal(wrote, read) {
				t.Errorf("%d bytes of %d came back, or others: %v", n, bulk, err)
			}
			took := time.Since(began)
			t.Logf("%s each way in %v%s", size(bulk), took.Round(time.Millisecond), rate(2*bulk, took))
			_ = c.Close()
			forward2.await(&forward2.out, `"close"`)
			for _, e := range forward2.events() {
				if e.Event == "close" && (e.Path != tt.path || e.Error != "") {
					t.Errorf("%+v, want %s", e, tt.path)
				}
			}
			finish(forward1, expose1, forward2, expose2)
			dev.interrupt()
			dev.want(cli.ExitOK)
		})
	}
}

// listenIn listens on loopback of a host until the test ends.
func listenIn(t *testing.T, l *lab.Lab, host string) (listener net.Listener, addr string) {
	t.Helper()
	if err := l.Do(host, func() (err error) { listener, err = net.Listen("tcp", "127.0.0.1:0"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener, listener.Addr().String()
}
