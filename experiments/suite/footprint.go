package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/footprint"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/rpc"
	"github.com/fnwire/fnwire/experiments/world"
)

const (
	footprintSettle = 5 * time.Second // until what joining took is collected
	footprintLimit  = 10 * time.Minute
)

// footprintOf measures what a function takes that links fnlib and little else.
func footprintOf() Experiment {
	return Experiment{
		Name: "footprint",
		Summary: "a function that links fnlib and little else, behind a port-restricted NAT: CPU of its start beside that of an empty program (start), memory and CPU once it has " +
			"joined and does nothing (idle), and the peaks of memory above that of one that sends and one that receives a big state (direct, relay)",
		Settings: []Setting{
			{"bytes", "4GiB", "256MiB", "the big state"},
			{"idle", "60s", "10s", "how long nothing is done"},
			{"starts", "41", "11", "starts of each program in a repetition, in turn"},
			{"reps", "3", "1", "repetitions"},
			profileSetting(),
		},
		run: runFootprint,
	}
}

type footprintRun struct {
	w               *world.World
	function, empty string // programs
	idle            time.Duration
	starts          int
	state           state
}

func runFootprint(ctx context.Context, r *run) (err error) {
	r.limit = footprintLimit
	f := &footprintRun{}
	size, err := r.bytes("bytes", 1, mostBytes)
	if err != nil {
		return err
	}
	if f.idle, err = r.duration("idle", shortest); err != nil {
		return err
	}
	if f.starts, err = r.count("starts", 1, mostAtOnce); err != nil {
		return err
	}
	reps, err := r.count("reps", 1, mostReps)
	if err != nil {
		return err
	}
	if err := r.checked(); err != nil {
		return err
	}
	for name, to := range map[string]*string{"function": &f.function, "empty": &f.empty} {
		if *to, err = peer.BuildAt(ctx, filepath.Join("experiments", "footprint", name), "footprint-"+name); err != nil {
			return err
		}
	}
	if f.state, err = r.realState(ctx, size); err != nil {
		return err
	}
	cfg := r.o.World
	cfg.Hosts = []lab.Host{{Name: "a", NAT: lab.PortRestricted}, {Name: "b", NAT: lab.PortRestricted}}
	if f.w, err = r.raise(ctx, cfg); err != nil {
		return err
	}
	defer f.w.Close()
	for rep := range reps {
		for _, c := range []struct {
			name string
			do   func(context.Context, *results.Record) error
		}{
			{"start", f.start},
			{"idle", f.rest},
			{"direct", func(ctx context.Context, rec *results.Record) error { return f.move(ctx, rec, "direct") }},
			{"relay", func(ctx context.Context, rec *results.Record) error { return f.move(ctx, rec, "relay") }},
		} {
			if err := r.measure(ctx, c.name, rep, c.do); err != nil {
				return err
			}
		}
	}
	return nil
}

// start runs both programs again and again.
func (f *footprintRun) start(ctx context.Context, rec *results.Record) error {
	began := time.Now()
	for name, program := range map[string]string{"function": f.function, "empty": f.empty} {
		if info, err := os.Stat(program); err == nil {
			rec.Measured["program_mb_"+name] = float64(info.Size()) / 1e6
		}
	}
	cpu := map[string][]float64{}
	for range f.starts {
		for name, program := range map[string]string{"function": f.function, "empty": f.empty} {
			cmd := exec.CommandContext(ctx, program, "end")
			if err := cmd.Run(); err != nil {
				return err
			}
			cpu[name] = append(cpu[name], ms(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()))
		}
	}
	function, empty := results.Median(cpu["function"]), results.Median(cpu["empty"])
	rec.Measured["start_cpu_ms_function"], rec.Measured["start_cpu_ms_empty"], rec.Measured["start_cpu_ms_more"] = function, empty, function-empty
	rec.Seconds, rec.Bytes, rec.OK = time.Since(began).Seconds(), 1, true
	return nil
}

// lean is a function that runs.
type lean struct {
	*rpc.Client
	*world.Proc
	name string
}

func (f *footprintRun) join(ctx context.Context, host string) (*lean, error) {
	c, p, err := f.w.Peer(ctx, host, f.function)
	if err != nil {
		return nil, err
	}
	l := &lean{c.Client, p, f.w.FreshName("lean")}
	a := f.w.JoinArgs(l.name)
	if err := l.Client.Call(ctx, footprint.OpJoin, footprint.JoinArgs{URL: a.URL, Key: a.Key, Name: l.name}, nil); err != nil {
		p.Kill()
		return nil, err
	}
	return l, nil
}

// rest has a function do nothing.
func (f *footprintRun) rest(ctx context.Context, rec *results.Record) error {
	l, err := f.join(ctx, "a")
	if err != nil {
		return err
	}
	defer l.Stop() //nolint:errcheck // the measurement is made
	if err := pause(ctx, footprintSettle); err != nil {
		return err
	}
	before, err := l.Client.Usage(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := pause(ctx, f.idle); err != nil {
		return err
	}
	after, err := l.Client.Usage(ctx)
	if err != nil {
		return err
	}
	took := time.Since(began)
	rss, err := memory(l.Pid(), "VmRSS")
	if err != nil {
		return err
	}
	rec.Measured["idle_rss_mib"] = rss
	rec.Measured["idle_cpu_percent"] = 100 * (after.CPU - before.CPU).Seconds() / took.Seconds()
	rec.Seconds, rec.Bytes, rec.OK = took.Seconds(), 1, true
	return nil
}

// move has one function send the big state to another.
func (f *footprintRun) move(ctx context.Context, rec *results.Record, path string) error {
	a, err := f.join(ctx, "a")
	if err != nil {
		return err
	}
	defer a.Stop() //nolint:errcheck // the measurement is made
	b, err := f.join(ctx, "b")
	if err != nil {
		return err
	}
	defer b.Stop() //nolint:errcheck // likewise
	if err := pause(ctx, footprintSettle); err != nil {
		return err
	}
	ends := map[string]*lean{"sender": a, "receiver": b}
	idle := make(map[string]float64)
	for name, l := range ends {
		if idle[name], err = memory(l.Pid(), "VmRSS"); err != nil {
			return err
		}
		if err := resetPeak(l.Pid()); err != nil {
			return err
		}
	}
	began := time.Now()
	var sent, got footprint.Moved
	both, bctx := errgroup.WithContext(ctx)
	both.Go(func() error {
		return a.Client.Call(bctx, footprint.OpSend, footprint.SendArgs{To: b.name, Path: path, Source: f.state.Source}, &sent)
	})
	both.Go(func() error { return b.Client.Call(bctx, footprint.OpReceive, rpc.None{}, &got) })
	if err := both.Wait(); err != nil {
		return err
	}
	rec.Path, rec.Bytes, rec.Seconds = sent.Path, got.Bytes, time.Since(began).Seconds()
	rec.Measured["goodput_mbps"] = mbps(rec.Bytes, rec.Seconds)
	for name, l := range ends {
		peak, err := memory(l.Pid(), "VmHWM")
		if err != nil {
			return err
		}
		rec.Measured[name+"_idle_rss_mib"], rec.Measured[name+"_peak_more_mib"] = idle[name], peak-idle[name]
	}
	rec.OK = got == footprint.Moved{Bytes: sent.Bytes, Digest: sent.Digest} && sent.Bytes == f.state.Size()
	return nil
}

// memory is a figure of /proc/PID/status, in MiB.
func memory(pid int, field string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("/proc has no " + field)
}

// resetPeak has VmHWM begin anew.
func resetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}
