package lab_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// showNet prints the addresses of the process, and its process ID as /proc has it.
func showNet() int {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fail(err)
	}
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return fail(err)
	}
	wd, err := os.Getwd()
	if err != nil {
		return fail(err)
	}
	fmt.Println(addrs, "pid matches:", self == strconv.Itoa(os.Getpid()), "wd:", wd)
	return 0
}

func TestStart(t *testing.T) {
	l := labtest.New(t, lab.Host{Name: "hub"}, lab.Host{Name: "a", NAT: lab.PortRestricted})
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	cmd := helper("net")
	var out bytes.Buffer
	cmd.Stdout = &out
	p, err := l.Start(t.Context(), "a", cmd)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("[127.0.0.1/8 %s/24 ::1/128] pid matches: true wd: %s\n", l.Addr("a"), wd)
	if out.String() != want {
		t.Errorf("a process in the lab tells %q, want %q", out.String(), want)
	}
	if p.State() == nil || p.State().ExitCode() != 0 {
		t.Errorf("state is %v, want exit status 0", p.State())
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Signal after the end: %v, want os.ErrProcessDone", err)
	}
	if _, err := l.Start(t.Context(), "nobody", helper("net")); err == nil || !strings.Contains(err.Error(), "hub, a") {
		t.Errorf("Start on an unknown host: %v, want an error that names the hosts", err)
	}
	if _, err := l.Start(t.Context(), "a", exec.Command("/does/not/exist")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Start of no program: %v, want os.ErrNotExist", err)
	}
}

func TestSignalAndContext(t *testing.T) {
	l := labtest.New(t, lab.Host{Name: "a"})
	died := func(p *lab.Proc) syscall.Signal {
		t.Helper()
		var exit *exec.ExitError
		if err := p.Wait(); !errors.As(err, &exit) {
			t.Fatalf("Wait: %v, want an ExitError", err)
		}
		return exit.Sys().(syscall.WaitStatus).Signal()
	}
	p, err := l.Start(t.Context(), "a", helper("idle"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := died(p); got != syscall.SIGTERM {
		t.Errorf("died of %v, want SIGTERM", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if p, err = l.Start(ctx, "a", helper("idle")); err != nil {
		t.Fatal(err)
	}
	cancel()
	if got := died(p); got != syscall.SIGKILL {
		t.Errorf("died of %v, want SIGKILL", got)
	}
	if _, err := l.Start(ctx, "a", helper("idle")); !errors.Is(err, context.Canceled) {
		t.Errorf("Start with an ended context: %v, want context.Canceled", err)
	}
}

// watched is what a lab consists of, as the kernel shows it to others.
type watched struct {
	t       testing.TB
	procs   map[int]int // pidfds by process ID
	ends    map[int]bool
	updates chan netlink.LinkUpdate
}

// watch looks at all processes in the PID namespace of pid. It ties to each network namespace a
// virtual cable whose other end is in a namespace of the test: it vanishes when the kernel takes the lab's one down.
func watch(t testing.TB, pid int, namespaces []netns.NsHandle) *watched {
	w := &watched{t: t, procs: map[int]int{}, ends: map[int]bool{}, updates: make(chan netlink.LinkUpdate, 64)}
	self, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if ns, err := os.Readlink(path); err != nil || ns != self {
			continue
		}
		id, _ := strconv.Atoi(strings.Split(path, "/")[2])
		if w.procs[id], err = unix.PidfdOpen(id, 0); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	err = lab.OnThread(func() error {
		own, err := netns.New()
		if err != nil {
			return err
		}
		defer own.Close()
		for i, ns := range namespaces {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = fmt.Sprint("end", i)
			veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "canary", PeerNamespace: netlink.NsFd(ns)}
			if err := netlink.LinkAdd(veth); err != nil {
				return fmt.Errorf("tie a cable: %w", err)
			}
			link, err := netlink.LinkByName(attrs.Name)
			if err != nil {
				return err
			}
			w.ends[link.Attrs().Index] = true
		}
		return netlink.LinkSubscribeAt(own, w.updates, done)
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// gone waits until all of it has gone.
func (w *watched) gone() {
	w.t.Helper()
	for pid, fd := range w.procs {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(patience.Milliseconds()))
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll(poll, int(patience.Milliseconds()))
		}
		if n != 1 {
			w.t.Errorf("process %d lives on (%v)", pid, err)
		}
		_ = unix.Close(fd)
	}
	late := time.After(patience)
	for len(w.ends) > 0 {
		select {
		case u := <-w.updates:
			if u.Header.Type == unix.RTM_DELLINK {
				delete(w.ends, int(u.Index))
			}
		case <-late:
			w.t.Fatalf("%d network namespaces live on", len(w.ends))
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func TestCloseLeavesNothing(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	outsider := helper("idle")
	if err := outsider.Start(); err != nil {
		t.Fatal(err)
	}
	defer outsider.Wait()
	defer outsider.Process.Kill()
	labtest.New(t, lab.Host{Name: "first"}).Close() // whatever the runtime opens once, it opens now
	files := openFiles(t)

	l := labtest.New(t, lab.Host{Name: "a", NAT: lab.FullCone}, lab.Host{Name: "b", NAT: lab.Symmetric}, lab.Host{Name: "c"},
		lab.Host{Name: "d", NAT: "sequential+mtu=1280"}, lab.Host{Name: "e", NAT: lab.CGN}, lab.Host{Name: "f", With: "e"},
		lab.Host{Name: "g", NAT: lab.IPv6Firewall})
	pid, err := startParent(l, "a")
	if err != nil {
		t.Fatal(err)
	}
	w := watch(t, pid, l.Namespaces())
	if len(w.procs) != 3 {
		t.Errorf("%d processes, want keeper, carrier of lines, parent and child", len(w.procs))
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	w.gone()
	if err := outsider.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("a process outside the lab: %v", err)
	}
	if after := openFiles(t); after > files+1 { // one is the test's subscription
		t.Errorf("%d open files, %d before", after, files)
	}
	if err := l.Do("a", func() error { return nil }); !errors.Is(err, lab.ErrClosed) {
		t.Errorf("Do on a closed lab: %v", err)
	}
	if _, err := l.Start(t.Context(), "a", helper("idle")); !errors.Is(err, lab.ErrClosed) {
		t.Errorf("Start on a closed lab: %v", err)
	}
	if _, err := l.Block("a", "b"); !errors.Is(err, lab.ErrClosed) {
		t.Errorf("Block on a closed lab: %v", err)
	}
}

func TestKillLeavesNothing(t *testing.T) {
	labtest.New(t, lab.Host{Name: "possible"}).Close()
	cmd := helper("holder")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	var h holding
	if err := json.NewDecoder(stdout).Decode(&h); err != nil {
		t.Fatalf("the holder of the lab tells nothing: %v", err)
	}
	var namespaces []netns.NsHandle
	for _, fd := range h.Namespaces {
		ns, err := netns.GetFromPath(fmt.Sprintf("/proc/%d/fd/%d", cmd.Process.Pid, fd))
		if err != nil {
			t.Fatal(err)
		}
		namespaces = append(namespaces, ns)
	}
	w := watch(t, h.Pid, namespaces)
	for _, ns := range namespaces {
		_ = ns.Close()
	}
	if len(w.procs) != 4 {
		t.Errorf("%d processes, want keeper, carrier of lines, parent and child", len(w.procs))
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	w.gone()
}

func TestDo(t *testing.T) {
	l := labtest.New(t, lab.Host{Name: "a"})
	outside, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	var inside string
	wantErr := errors.New("passed on")
	err = l.Do("a", func() (err error) {
		if inside, err = os.Readlink("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		return wantErr
	})
	if err != wantErr || inside == outside {
		t.Errorf("Do ran in %s (outside %s) and returned %v", inside, outside, err)
	}
	if main, err := os.Readlink("/proc/self/ns/net"); err != nil || main != outside {
		t.Errorf("the main thread is in %s (%v), want %s", main, err, outside)
	}
	if err := l.Do("nobody", func() error { return nil }); err == nil {
		t.Error("Do on an unknown host succeeds")
	}
	if err := l.Do("a", func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("Do returns no error when its function ends the goroutine")
	}
}
