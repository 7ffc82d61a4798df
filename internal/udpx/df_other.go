//go:build !linux && !darwin && !windows

package udpx

// dontFragment has no portable form here; senders still find the size that fits by loss.
func dontFragment(uintptr, bool) {}
