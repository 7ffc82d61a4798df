//go:build !linux

package calibration

import (
	"context"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
)

const (
	pingBytes  = 64
	countBytes = 64
)

// way is nothing: labs are on Linux only.
type way struct{ longest time.Duration }

func meet(context.Context, *lab.Lab, string, lab.HostInfo) (up, down way, err error) {
	return up, down, lab.ErrUnavailable
}

func (way) close() error                                        { return nil }
func (way) delay(context.Context, int64) (time.Duration, error) { return 0, lab.ErrUnavailable }
func (way) count(context.Context, int, int) (sent, got int, err error) {
	return 0, 0, lab.ErrUnavailable
}
func (way) rate(context.Context, int64, time.Duration) (float64, error) { return 0, lab.ErrUnavailable }
