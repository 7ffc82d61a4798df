//go:build !linux

package flood

import (
	"context"
	"errors"
)

// Tap does not exist on this system.
type Tap struct{}

var errNoTap = errors.New("flood: packets can be captured on Linux only")

// OpenTap returns an error.
func OpenTap() (*Tap, error) { return nil, errNoTap }

// Capture returns an error.
func (*Tap) Capture(context.Context, int, uint16, byte) ([][]byte, error) { return nil, errNoTap }

// Close does nothing.
func (*Tap) Close() error { return nil }
