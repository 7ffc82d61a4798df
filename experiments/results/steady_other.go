//go:build !linux

package results

import "time"

func threadTime() (time.Duration, bool) { return 0, false }
