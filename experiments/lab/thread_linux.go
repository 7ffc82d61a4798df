package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

var errGoexit = errors.New("lab: the function ended its goroutine (runtime.Goexit, t.FailNow)")

// onThread runs fn on an operating system thread of its own, which ends with fn, so that no other goroutine
// ever runs on a thread whose namespaces fn has changed.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end before the process does: it would keep fn's namespace alive. Hold it, so that fn gets another.
			defer runtime.UnlockOSThread()
			done <- onThread(fn)
			return
		}
		err := errGoexit
		defer func() { done <- err }()
		err = fn()
	}()
	return <-done
}

// node is one network namespace: a host, a router or the core.
type node struct{ ns netns.NsHandle }

// newNode makes a namespace in which lo is up and nothing is inherited from the machine's settings that matters here.
func newNode() (*node, error) {
	n := &node{ns: netns.None()}
	err := onThread(func() (err error) {
		if n.ns, err = netns.New(); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		return n.basics()
	})
	if err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

func (n *node) basics() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	if err := knowSelf(lo); err != nil {
		return err
	}
	// Interfaces made from here on follow "default". A new namespace copies these from the machine.
	for _, s := range []sysctl{
		{"ipv4/ip_forward", "0", false},
		{"ipv4/conf/all/rp_filter", "0", false},
		{"ipv4/conf/default/rp_filter", "0", false},
		{"ipv4/conf/all/send_redirects", "0", false},
		{"ipv4/conf/default/send_redirects", "0", false},
		{"ipv6/conf/default/disable_ipv6", "1", true},
		{"bridge/bridge-nf-call-iptables", "0", true},
	} {
		if err := s.set(); err != nil {
			return err
		}
	}
	return nil
}

// do runs fn on a thread inside the namespace.
func (n *node) do(fn func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.ns); err != nil {
			return fmt.Errorf("enter namespace: %w", err)
		}
		return fn()
	})
}

func (n *node) close() {
	if n.ns.IsOpen() {
		_ = n.ns.Close()
	}
}

// sysctl is a setting under /proc/sys/net, which shows the namespace of the calling thread.
type sysctl struct {
	name, value string
	optional    bool // may be absent: the kernel lacks the feature
}

func (s sysctl) set() error {
	path := "/proc/sys/net/" + s.name
	old, err := os.ReadFile(path)
	if s.optional && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && len(old) > 0 && string(old[:len(old)-1]) == s.value {
		return nil
	}
	if err := os.WriteFile(path, []byte(s.value), 0o644); err != nil {
		return fmt.Errorf("%w: set net/%s (in a container, /proc/sys must be writable): %w", ErrUnavailable, s.name, err)
	}
	return nil
}
