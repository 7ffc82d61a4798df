package lab

import "github.com/vishvananda/netns"

// Namespaces returns the handles of all namespaces of l, for tests that watch them go.
func (l *Lab) Namespaces() []netns.NsHandle {
	all := []netns.NsHandle{l.core.ns}
	for _, n := range l.nodes {
		all = append(all, n.ns)
	}
	for _, n := range l.routers {
		all = append(all, n.ns)
	}
	return all
}

// OnThread is onThread.
func OnThread(fn func() error) error { return onThread(fn) }
