package suite

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fnwire/fnwire/experiments/calibration"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/wan"
	"github.com/fnwire/fnwire/experiments/world"
)

// profileSetting is the setting of experiments whose network may be emulated.
func profileSetting() Setting {
	return Setting{settingProfile, wan.None, "", "the network between the hosts: " + strings.Join(wan.ProfileNames(), ", ") + " (package experiments/wan); NAME/8 is 8 times slower"}
}

// Beyond these, a measurement is of the emulator rather than of what it emulates.
const (
	carrierBusy = 80                      // percent of a core, of one thread of lines
	machineIdle = 5                       // percent of all cores, which hosts and lines share: hosts in a real network do not
	carrierLate = 2048 * time.Microsecond // to which lateness is known
)

// raise makes the world of all measurements, with the network of the setting profile, and measures the network before anything happens in it.
func (r *run) raise(ctx context.Context, cfg world.Config) (*world.World, error) {
	w, err := r.world(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if !r.emulated() {
		return w, nil
	}
	r.say(fmt.Sprintf("%s: calibrating %s", r.e.Name, r.settings[settingProfile]))
	if r.calibration, err = calibration.Lab(ctx, w.Lab(), world.Public); err != nil {
		_ = w.Close()
		return nil, err
	}
	r.watched = w
	return w, nil
}

// calibrate measures the network of the setting profile in a world that is for nothing else, for an experiment that makes several worlds.
func (r *run) calibrate(ctx context.Context) error {
	if _, err := setting(r, settingProfile, wan.FindProfile); err != nil || !r.emulated() {
		return err
	}
	cfg := r.o.World
	cfg.Hosts = []lab.Host{{Name: "a"}, {Name: "b"}}
	w, err := r.raise(ctx, cfg)
	if err != nil {
		return err
	}
	r.watched = nil
	return w.Close()
}

// world makes one of several worlds, with the network of the setting profile; see calibrate and watch.
func (r *run) world(ctx context.Context, cfg world.Config) (*world.World, error) {
	profile, err := setting(r, settingProfile, wan.FindProfile)
	if err != nil {
		return nil, err
	}
	cfg.Network, cfg.Seed = profile, r.o.Seed
	if _, there := r.settings[settingCompress]; there {
		compress, err := setting(r, settingCompress, strconv.ParseBool)
		if err != nil {
			return nil, err
		}
		cfg.NoCompress = !compress
	}
	return world.New(ctx, cfg)
}

// Settings that several experiments have.
const (
	settingProfile  = "profile"
	settingCompress = "compress"
)

// compressSetting is the setting of experiments that compare with stores.
func compressSetting() Setting {
	return Setting{settingCompress, "false", "", "whether fnwire compresses what it sends where that is faster, as it does unless told otherwise; states are programs, which get half as " +
		"long, and a store is given them as they are"}
}

// slow is how many times slower the network is than its profile is called; 1: not.
func (r *run) slow() int {
	p, err := wan.FindProfile(r.settings[settingProfile])
	if err != nil { // which raise has told
		return 1
	}
	return max(p.Slow, 1)
}

// dilated notes in a record that the network is slower than its profile is called.
func (r *run) dilated(rec *results.Record) {
	switch n := r.slow(); {
	case n > 1 && r.divided:
		rec.Modelled = append(rec.Modelled, fmt.Sprintf("time dilation: the network, and what else is modelled, is %d times slower, and all times are divided by that, "+
			"so that %d cores are as many as %d, though no function is held to a share of them; see wan.Profile.Slowed", n, r.machine.Cores, r.machine.Cores*n))
	case n > 1:
		rec.Modelled = append(rec.Modelled, fmt.Sprintf("the network, and what else is modelled, is %d times slower than its name says; times are not divided by that", n))
	}
}

// emulated tells whether there is more between hosts than cables.
func (r *run) emulated() bool { return r.settings[settingProfile] != wan.None }

// watch notes in a record what the lines of a world did until done. The world of raise is watched by measure.
func (r *run) watch(rec *results.Record, w *world.World) (done func()) {
	if w == nil || !r.emulated() {
		return func() {}
	}
	before, _, err := w.Lab().Lines()
	if err != nil {
		return func() {} // the lab has gone, and the measurement will say so
	}
	idle, all := results.CPUTime()
	return func() {
		after, realTime, err := w.Lab().Lines()
		if err != nil {
			return
		}
		if !realTime {
			rec.Marks = append(rec.Marks, "the emulator has no real-time priority")
		}
		r.judgeLines(rec, before, after)
		if idleNow, allNow := results.CPUTime(); allNow > all {
			share := 100 * float64(idleNow-idle) / float64(allNow-all)
			if rec.Measured["machine_idle_percent"] = share; share < machineIdle {
				rec.Marks = append(rec.Marks, fmt.Sprintf("bound by the machine: it had less than %d %% of its CPU to spare", machineIdle))
			}
		}
	}
}

const (
	steadyWindows = 10 // that must have passed for the share of slow ones to be known: 1 s or more
	steadySlowed  = 5  // percent of them: more, and the 95th percentile of anything is the host's
)

// busyTicks are how many ticks must have passed for the share that was idle to be known.
const busyTicks = 20

// markBusy notes how much of the machine was idle while functions worked, and marks that it was too little.
func markBusy(rec *results.Record, idle, ticks int64) {
	if ticks < busyTicks {
		return
	}
	share := 100 * float64(idle) / float64(ticks)
	if rec.Measured["rounds_idle_percent"] = share; share < machineBusy {
		rec.Marks = append(rec.Marks, fmt.Sprintf("bound by the machine: all functions, and the store, share its cores, of which less than %d %% was idle", machineBusy))
	}
}

// judgeSteady notes how often the machine was slowed from outside since there were so many windows, if it was long enough to tell.
func (r *run) judgeSteady(rec *results.Record, slow, windows int64) {
	slowNow, now := r.steady.Windows()
	if now-windows < steadyWindows {
		return
	}
	share := 100 * float64(slowNow-slow) / float64(now-windows)
	if rec.Measured["machine_slowed_percent"] = share; share > steadySlowed {
		rec.Marks = append(rec.Marks, fmt.Sprintf("slowed from outside: for more than %d %% of the time the machine had less than half its speed, by no doing of its own", steadySlowed))
	}
}

// judgeLines notes what the lines did between two times, by the busiest and the latest of them, and marks once what any of them was too slow for.
func (r *run) judgeLines(rec *results.Record, before, after map[string]wan.Usage) {
	var late, over, packets, bytes float64
	var fates [wan.Fates]int64
	threads := make(map[int]float64) // percent of a core
	for host, a := range after {
		b := before[host]
		threads[a.Thread] = 100 * float64(a.CPU-b.CPU) / float64(a.At.Sub(b.At))
		up, down := a.Up.Sub(b.Up), a.Down.Sub(b.Down)
		behind := max(up.LateBy(0.99), down.LateBy(0.99))
		for i := range fates {
			fates[i] += up.Fates[i] + down.Fates[i]
		}
		packets, bytes = packets+float64(up.Packets+down.Packets), bytes+float64(up.Bytes+down.Bytes)
		lost := up.Overrun + down.Overrun
		late, over = max(late, ms(behind)), over+float64(lost)
	}
	var busy, all float64
	for _, share := range threads {
		busy, all = max(busy, share), all+share
	}
	lateFor := carrierLate * time.Duration(r.slow())
	for _, m := range []struct {
		is   bool
		what string
	}{
		{over > 0, "dropped frames"},
		{busy > carrierBusy, fmt.Sprintf("and those of its thread took more than %d %% of a core", carrierBusy)},
		{late > ms(lateFor), fmt.Sprintf("was late by more than %v for 1 %% of the frames", lateFor.Truncate(time.Millisecond))},
	} {
		if m.is {
			rec.Marks = append(rec.Marks, "bound by the emulator: a line "+m.what)
		}
	}
	rec.Measured["lines_percent_of_core"], rec.Measured["line_packets"], rec.Measured["line_bytes"] = all, packets, bytes
	rec.Measured["line_busiest_percent"], rec.Measured["line_late_ms_p99"], rec.Measured["line_overrun"] = busy, late, over
	rec.Measured["line_lost"], rec.Measured["line_overflowed"] = float64(fates[wan.Lost]+fates[wan.Out]), float64(fates[wan.Overflow])
}
