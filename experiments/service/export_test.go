package service

import (
	"context"
	"net"
	"time"
)

// ServeVirtual is Serve in the time of package testing/synctest.
func (m Model) ServeVirtual(ctx context.Context, l net.Listener, dial func(context.Context) (net.Conn, error)) error {
	return forwarder{m, time.Sleep, dial}.serve(ctx, l)
}

// Nap sleeps as the forwarder does.
func Nap(d time.Duration) { nap(d) }
