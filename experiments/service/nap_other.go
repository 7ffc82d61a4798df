//go:build !linux

package service

import "time"

func nap(d time.Duration) { time.Sleep(d) }
