package lab_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"golang.org/x/sys/unix"
)

// mended breaks something and returns how to mend it.
func mended(t *testing.T, fault func() (func() error, error)) func() {
	t.Helper()
	mend, err := fault()
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := mend(); err != nil {
			t.Error(err)
		}
	}
}

// arrives reports whether a message of n bytes passes; what waits at its destination is dropped first.
func arrives(from, to sock, addr netip.AddrPort, n int) bool {
	msg := strings.Repeat("x", n)
	from.send(addr, msg)
	for {
		got, _, ok := to.recv(moment)
		if !ok || got == msg {
			return ok
		}
	}
}

// punched is a lab with a hole punched between its hosts a and b.
func punched(t *testing.T) (l *lab.Lab, a, b sock, atA, atB netip.AddrPort) {
	l = labtest.New(t, lab.Host{Name: "a", NAT: lab.PortRestricted}, lab.Host{Name: "b", NAT: lab.PortRestricted})
	a, b = listen(t, l, "a", 4000), listen(t, l, "b", 5000)
	atA, atB = at(l, "a", a), at(l, "b", b)
	a.send(atB, "punch")
	b.send(atA, "hello")
	a.want("hello")
	a.send(atB, "hello")
	b.until("hello")
	return l, a, b, atA, atB
}

func TestLose(t *testing.T) {
	l, a, b, _, atB := punched(t)
	mend := mended(t, func() (func() error, error) { return l.Lose("a", "b", 30) })
	const sent = 1000
	got := 0
	for i := range sent {
		a.send(atB, fmt.Sprint(i))
		if i%100 == 99 { // or the socket's buffer would lose some, too
			for more := true; more; {
				if _, _, more = b.recv(moment); more {
					got++
				}
			}
		}
	}
	if got < 600 || got > 800 { // 700, and seven standard deviations
		t.Errorf("%d of %d arrived with 30 %% lost", got, sent)
	}
	mend()
	mend()
	if !arrives(a, b, atB, 10) {
		t.Error("lost after mending")
	}
	for _, percent := range []int{0, 101} {
		if _, err := l.Lose("a", "b", percent); err == nil {
			t.Errorf("loss of %d %% is accepted", percent)
		}
	}
}

func TestReorder(t *testing.T) {
	l := labtest.New(t, lab.Host{Name: "a", NAT: lab.FullCone + "+timeout=1m"}, lab.Host{Name: "b"})
	a, b := listen(t, l, "a", 4000), listen(t, l, "b", 5000)
	atB := at(l, "b", b)
	overtaken := func() (n int) {
		t.Helper()
		const sent = 200
		for i := range sent {
			a.send(atB, fmt.Sprintf("%03d", i))
		}
		last := ""
		for range sent {
			msg, _, ok := b.recv(moment)
			if !ok {
				t.Fatal("a packet is lost")
			}
			if msg < last {
				n++
			}
			last = max(last, msg)
		}
		return n
	}
	if n := overtaken(); n > 0 {
		t.Errorf("%d packets overtaken at first", n)
	}
	mend := mended(t, func() (func() error, error) { return l.Reorder("a", 20, 1) })
	if n := overtaken(); n < 10 || n > 80 { // 40 are held back
		t.Errorf("%d of 200 packets overtaken", n)
	}
	mend()
	if n := overtaken(); n > 0 {
		t.Errorf("%d packets overtaken after mending", n)
	}
	if _, err := l.Reorder("b", 5, 1); err == nil {
		t.Error("a host without a NAT reorders")
	}
}

func TestRebootNAT(t *testing.T) {
	l, a, b, atA, atB := punched(t)
	if err := l.RebootNAT("a"); err != nil {
		t.Fatal(err)
	}
	if arrives(b, a, atA, 10) {
		t.Error("the mapping survives")
	}
	if !arrives(a, b, atB, 11) || !arrives(b, a, atA, 12) {
		t.Error("no new mapping")
	}
	if err := l.RebootNAT("nobody"); err == nil {
		t.Error("a host that does not exist has a NAT")
	}
}

func TestChangePublicAddr(t *testing.T) {
	l, a, b, atA, atB := punched(t)
	fresh, err := l.ChangePublicAddr("a")
	if err != nil {
		t.Fatal(err)
	}
	if l.PublicAddr("a") != fresh || fresh == atA.Addr() {
		t.Errorf("is %v now, was %v; told %v", l.PublicAddr("a"), atA, fresh)
	}
	now := netip.AddrPortFrom(fresh, atA.Port())
	b.send(now, "punch")
	if !arrives(a, b, atB, 10) || !arrives(b, a, now, 11) {
		t.Error("the new address does not work")
	}
	if arrives(b, a, atA, 12) {
		t.Error("the old address works")
	}
}

func TestChangeAddr(t *testing.T) {
	l, a, b, atA, atB := punched(t)
	old := l.Addr("a")
	fresh, err := l.ChangeAddr("a")
	if err != nil {
		t.Fatal(err)
	}
	if l.Addr("a") != fresh || fresh == old {
		t.Errorf("is %v now, was %v; told %v", l.Addr("a"), old, fresh)
	}
	a.send(atB, "from another port of the NAT, maybe")
	msg, from, ok := b.recv(moment)
	if ok && from == atA {
		t.Errorf("%q comes by the old mapping, which is of another host", msg)
	}
}

func TestNarrow(t *testing.T) {
	for name, narrow := range map[string]func(l *lab.Lab) (func() error, error){
		"path": func(l *lab.Lab) (func() error, error) { return l.Narrow("a", "b", 1280) },
		"line": func(l *lab.Lab) (func() error, error) { return l.NarrowLine("a", 1280) },
	} {
		t.Run(name, func(t *testing.T) {
			l, a, b, atA, atB := punched(t)
			mend := mended(t, func() (func() error, error) { return narrow(l) })
			for _, s := range []sock{a, b} {
				dontFragment(s)
			}
			for n, want := range map[int]bool{1252: true, 1253: false} {
				if got := arrives(a, b, atB, n); got != want {
					t.Errorf("%d bytes from a to b pass: %v", n, got)
				}
				if got := arrives(b, a, atA, n); got != want {
					t.Errorf("%d bytes from b to a pass: %v", n, got)
				}
			}
			mend()
			if !arrives(a, b, atB, 1472) || !arrives(b, a, atA, 1472) {
				t.Error("still narrow after mending")
			}
		})
	}
}

// dontFragment is what QUIC sets; what the kernel is told of a path's MTU does not matter to it.
func dontFragment(s sock) {
	s.control(func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	})
}

func TestLoseBatches(t *testing.T) {
	l, a, b, _, atB := punched(t)
	batch := make([]byte, 4200)
	passes := func() bool {
		t.Helper()
		if _, _, err := a.WriteMsgUDPAddrPort(batch, segmentSize(1400), atB); err != nil && !errors.Is(err, unix.EPERM) {
			t.Fatal(err)
		}
		_, _, ok := b.recv(moment)
		for more := ok; more; {
			_, _, more = b.recv(moment)
		}
		return ok
	}
	if !passes() {
		t.Fatal("a batch does not pass at first")
	}
	mend := mended(t, func() (func() error, error) { return l.LoseBatches("a") })
	if passes() || !arrives(a, b, atB, 1400) {
		t.Error("a batch passes, or a single packet does not")
	}
	mend()
	if !passes() {
		t.Error("a batch does not pass after mending")
	}
}
