//go:build unix

package rpc

import (
	"context"
	"fmt"
	"runtime"
	"syscall"
	"time"
)

func usage(context.Context, None) (Usage, error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return Usage{}, fmt.Errorf("getrusage: %w", err)
	}
	u := Usage{CPU: time.Duration(r.Utime.Nano() + r.Stime.Nano()), MaxRSSBytes: int64(r.Maxrss)} //nolint:unconvert // the type differs between systems
	if runtime.GOOS == "linux" {
		u.MaxRSSBytes *= 1024
	}
	return u, nil
}
