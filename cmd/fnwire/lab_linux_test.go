package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// behindNATs is a lab with fnwire dev on a public host and a host behind a NAT on either side, and the environment of a job.
func behindNATs(t *testing.T, a, b lab.Kind) (l *lab.Lab, env environment, dev *process) {
	t.Helper()
	l = labtest.New(t, lab.Host{Name: "public"}, lab.Host{Name: "a", NAT: a}, lab.Host{Name: "b", NAT: b})
	public := l.Addr("public")
	dev = environment{}.inLab(t, l, "public", "dev", "--json",
		"--listen", netip.AddrPortFrom(public, 4222).String(), "--relay-listen", netip.AddrPortFrom(public, 3478).String())
	dev.await(&dev.out, "\n")
	var r devReport
	dev.decode(&dev.out, &r)
	return l, environment{"FNWIRE_URL=" + r.URL, "FNWIRE_JOB_KEY=" + r.JobKey}, dev
}

// tunnelIn has b expose a target and a forward to it, as a service of that name. addr is where a's programs connect.
func (env environment) tunnelIn(t *testing.T, l *lab.Lab, service, target string) (addr string, expose, forward *process) {
	t.Helper()
	expose = env.inLab(t, l, "b", "expose", "--json", "--name", "b-"+service, "--service", service, target)
	forward = env.inLab(t, l, "a", "forward", "--json", "--name", "a-"+service, "--listen", "127.0.0.1:0", "--to", "b-"+service+":"+service)
	expose.await(&expose.out, "\n")
	forward.await(&forward.out, "\n")
	return forward.events()[0].Listen, expose, forward
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
			l, env, dev := behindNATs(t, tt.a, tt.b)
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
			addr, expose1, forward1 := env.tunnelIn(t, l, "web", files)
			work := t.TempDir()
			began := time.Now()
			runIn(t, l, "a", gitCommand(t.Context(), work, "clone", "http://"+addr+"/repo.git", "copy"))
			t.Logf("cloned in %v", time.Since(began).Round(time.Millisecond))
			wantClone(t, filepath.Join(work, "copy"), head)

			addr, expose2, forward2 := env.tunnelIn(t, l, "echo", echoAddr)
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

// runIn runs a program on a host to its end, which must be a good one, and returns what it says.
func runIn(t *testing.T, l *lab.Lab, host string, cmd *exec.Cmd) string {
	t.Helper()
	var out output
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := l.Start(testContext(t), host, cmd)
	if err == nil {
		err = p.Wait()
	}
	if err != nil {
		t.Fatalf("%q: %v: %s", cmd.Args, err, &out)
	}
	return out.String()
}

// serveIn runs a program on a host until the test ends. It must say that it is ready.
func serveIn(t *testing.T, l *lab.Lab, host, ready string, cmd *exec.Cmd) {
	t.Helper()
	p := &process{t: t, args: cmd.Args}
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	proc, err := l.Start(t.Context(), host, cmd) // whose context ends before Cleanup
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = proc.Wait() // as killed
		if t.Failed() {
			t.Logf("%q: %.2000s", cmd.Args, &p.out)
		}
	})
	p.await(&p.out, ready)
}

// TestTunnelPrograms has programs that measure a network run over a tunnel through two NATs, with many connections and
// in both directions, to their ends.
func TestTunnelPrograms(t *testing.T) {
	for _, program := range []string{"redis-server", "redis-benchmark", "iperf3"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("FNWIRE_CI") != "" {
				t.Fatal(err)
			}
			t.Skipf("%v: apt-get install redis-server iperf3", err)
		}
	}
	seconds, requests := "3", "20000"
	if testing.Short() {
		seconds, requests = "1", "2000"
	}
	for _, kind := range []lab.Kind{lab.PortRestricted, lab.Symmetric} {
		t.Run(string(kind), func(t *testing.T) {
			l, env, dev := behindNATs(t, kind, kind)
			serveIn(t, l, "b", "eady to accept connections", exec.Command("redis-server", "--port", "6379", "--save", "", "--dir", t.TempDir()))
			serveIn(t, l, "b", "istening", exec.Command("iperf3", "--server", "--port", "5201", "--forceflush"))
			port := func(addr string) string {
				_, port, err := net.SplitHostPort(addr)
				if err != nil {
					t.Fatal(err)
				}
				return port
			}
			addr, expose1, forward1 := env.tunnelIn(t, l, "redis", "127.0.0.1:6379")
			out := runIn(t, l, "a", exec.Command("redis-benchmark", "-p", port(addr), "-n", requests, "-c", "50", "-P", "4", "-d", "100", "-q", "-t", "ping,set,get,lrange_100"))
			if strings.Contains(strings.ToLower(out), "error") || !strings.Contains(out, "GET: ") {
				t.Errorf("redis-benchmark: %s", out)
			}
			t.Log(strings.ReplaceAll(out, "\r", "\n"))
			addr, expose2, forward2 := env.tunnelIn(t, l, "iperf", "127.0.0.1:5201")
			for _, direction := range []string{"--parallel=4", "--reverse"} {
				out := runIn(t, l, "a", exec.Command("iperf3", "--client", "127.0.0.1", "--port", port(addr), "--time", seconds, direction, "--json"))
				var r struct {
					Error string `json:"error"`
					End   struct {
						Received struct {
							Bytes         int64   `json:"bytes"`
							BitsPerSecond float64 `json:"bits_per_second"`
						} `json:"sum_received"`
					} `json:"end"`
				}
				if err := json.Unmarshal([]byte(out), &r); err != nil || r.Error != "" || r.End.Received.Bytes < 1<<20 {
					t.Errorf("iperf3 %s: %v, %+v", direction, err, r)
				}
				t.Logf("iperf3 %s: %.0f Mbit/s", direction, r.End.Received.BitsPerSecond/1e6)
			}
			finish(forward1, expose1, forward2, expose2)
			dev.interrupt()
			dev.want(cli.ExitOK)
		})
	}
}
