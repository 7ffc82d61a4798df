package service

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// coarse is what Go's timers may be late by: the runtime waits for them and for sockets in one system call, which counts milliseconds.
const coarse = 1200 * time.Microsecond

// nap sleeps to some microseconds, if there is a processor to wake up on.
func nap(d time.Duration) {
	until := time.Now().Add(d)
	if d > coarse {
		time.Sleep(d - coarse)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)                  // of the thread; else the kernel is 50 microseconds late on purpose
	for left := time.Until(until); left > 0; left = time.Until(until) { // a signal may wake it up
		ts := unix.NsecToTimespec(left.Nanoseconds())
		_ = unix.Nanosleep(&ts, nil)
	}
}
