package punch

import (
	"testing"
	"time"
	"unsafe"
)

// setWall returns t with its wall clock set forward by whole seconds and the same monotonic one, which package time has no
// way to make.
func setWall(t time.Time, d time.Duration) time.Time {
	if d == 0 {
		return t
	}
	was := t
	(*struct{ wall uint64 })(unsafe.Pointer(&t)).wall += uint64(d/time.Second) << 30
	if !t.Equal(was) || t.Round(0).Sub(was.Round(0)) != d {
		panic("package time lays out a Time in another way")
	}
	return t
}

// A step of the wall clock looks like the pause of a suspended virtual machine, which the monotonic clock need not count. It is taken for a
// freeze once, though the times that the owner tells carry the old wall clock from then on.
func TestWallClockIsSet(t *testing.T) {
	for _, step := range []time.Duration{-time.Hour, 4 * time.Second, 10 * time.Second, time.Hour} {
		s := directPair(t, simConfig{clocks: true})
		s.talk(s.a, 50*ms, time.Second)
		want := 0
		for range 2 {
			s.a.wall += step
			if step > frozenAfter {
				want++
			}
			s.talk(s.a, 50*ms, 10*time.Second)
			s.net.Run(time.Minute)
			got := 0
			for _, h := range s.a.history {
				if h.Reason == "process was frozen" {
					got++
				}
			}
			if got != want || !s.bothDirect() {
				t.Errorf("set by %v: frozen %d times, want %d\n%s", step, got, want, s.a.story())
			}
		}
	}
}

// A virtual machine is suspended again a moment after it has gone on: its monotonic clock, which stands still meanwhile, has both within a second.
func TestSuspendedTwice(t *testing.T) {
	s := directPair(t, simConfig{clocks: true})
	s.talk(s.a, 50*ms, time.Second)
	for i := range 3 {
		s.a.wall += time.Hour
		s.talk(s.a, 50*ms, time.Second)
		got := 0
		for _, h := range s.a.history {
			if h.Reason == "process was frozen" {
				got++
			}
		}
		if got != i+1 {
			t.Errorf("suspended %d times, noticed %d", i+1, got)
		}
	}
}

// A Machine that was made anew after the clock was set back is not refused as a replay of the old one.
func TestNewMachineAfterClockWasSetBack(t *testing.T) {
	for _, which := range []string{"a", "b"} {
		s := directPair(t, simConfig{clocks: true})
		x := s.a
		if which == "b" {
			x = s.b
		}
		x.m, x.wall = New(x.m.cfg), -time.Minute
		x.step(SetLocal{Candidates: x.cands})
		s.connect(x, 20*ms)
		s.net.Run(3 * time.Second)
		if !s.bothDirect() {
			t.Errorf("%s\n%s\n%s", which, s.a.story(), s.b.story())
		}
	}
}
