package main

import (
	"fmt"
	"strconv"
	"time"
)

// size shows bytes with a binary unit, as the progress bar does.
func size(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, unit := float64(n)/1024, 0
	for v >= 1023.95 && unit < 4 {
		v /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", v, "KMGTP"[unit])
}

// rate shows bytes per second, or nothing for a time too short to tell.
func rate(n int64, took time.Duration) string {
	if took < time.Millisecond || n < 64<<10 {
		return ""
	}
	return ", " + size(int64(float64(n)/took.Seconds())) + "/s"
}

// short rounds a time to what people read: three digits or so.
func short(d time.Duration) time.Duration {
	for unit := time.Second; unit >= time.Microsecond; unit /= 10 {
		if d >= unit {
			return d.Round(unit / 100)
		}
	}
	return d
}

// seconds is how JSON gives times.
func seconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e6 }

// because shows why a link is relayed.
func because(path, reason string) string {
	if path == "direct" || reason == "" {
		return ""
	}
	return " (no direct path: " + reason + ")"
}
