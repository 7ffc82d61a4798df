package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/vishvananda/netlink"

	"github.com/fnwire/fnwire/experiments/wan"
)

// line is a host's, with the interfaces at its ends.
type line struct {
	host       string
	job        wan.Job // until it is carried
	node       *node   // inside
	name, port string
}

// plug joins a node to the bridge, by the line of the i-th host, with an interface called name that has the host's outside address.
func (l *Lab) plug(n *node, name string, i int, h Host) error {
	if err := l.uplink(n, name, i, h); err != nil {
		return err
	}
	return n.do(func() error { return configure(name, outsideAddr(i), coreAddr) })
}

// uplink joins a node to the bridge by the line of the i-th host.
func (l *Lab) uplink(n *node, name string, i int, h Host) error {
	port := fmt.Sprint(portPrefix, i)
	l.internet.ends = append(l.internet.ends, end{node: n, name: name, addr: outsideAddr(i), port: port})
	if h.Line == (wan.Line{}) {
		return cableToBridge(l.core, bridgeName, port, n, name, mtu)
	}
	inside, err := tap(n, name)
	if err != nil {
		return err
	}
	outside, err := tap(l.core, port)
	if err != nil {
		_ = inside.Close()
		return err
	}
	l.lines = append(l.lines, line{host: h.Name, node: n, name: name, port: port,
		job: wan.Job{Line: h.Line, Seed: l.seed + uint64(i), Inside: inside, Outside: outside}})
	return toBridge(l.core, bridgeName, port)
}

// startLines has a process of the lab carry what has gathered.
func (l *Lab) startLines() (err error) {
	if len(l.lines) == 0 {
		return nil
	}
	jobs := make([]wan.Job, 0, len(l.lines))
	for i := range l.lines {
		jobs = append(jobs, l.lines[i].job)
		l.lines[i].job = wan.Job{}
	}
	l.carrier, err = wan.NewCarrier(jobs, func(files []*os.File) error {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Args[0] = os.Args[0]
		cmd.Env = append(os.Environ(), envRole+"="+roleCarrier)
		cmd.Stderr = os.Stderr
		cmd.ExtraFiles = files
		_, err := l.start(context.Background(), l.core, "the core", cmd)
		return err
	})
	return err
}

// closeLines lets go of what startLines has made, or would have.
func (l *Lab) closeLines() {
	if l.carrier != nil {
		_ = l.carrier.Close()
	}
	for _, line := range l.lines {
		if line.job.Inside != nil {
			_ = line.job.Inside.Close()
			_ = line.job.Outside.Close()
		}
	}
}

// carry is the life of the process that carries lines. It ends with the lab.
func carry() {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if err := wan.Carry(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func tap(n *node, name string) (f *os.File, err error) {
	err = n.do(func() error {
		f, err = wan.TAP(name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return f, nil
}

// Lines tells what the lines have done, by host, and whether the process that carries them has real-time priority. Of hosts that
// share a NAT, it is the first that has the line.
func (l *Lab) Lines() (lines map[string]wan.Usage, realTime bool, err error) {
	lines = make(map[string]wan.Usage, len(l.lines))
	if len(l.lines) == 0 {
		return lines, false, nil
	}
	usage, realTime, err := l.carrier.Usage()
	if err != nil {
		return nil, false, err
	}
	for i, line := range l.lines {
		u := usage[i]
		for _, end := range []struct {
			node *node
			name string
			of   *wan.Counts
		}{{line.node, line.name, &u.Up}, {l.core, line.port, &u.Down}} {
			// What the cable was too slow for has been dropped by the device.
			err := l.within(end.node, func() error {
				link, err := netlink.LinkByName(end.name)
				if err == nil && link.Attrs().Statistics != nil {
					end.of.Overrun += int64(link.Attrs().Statistics.TxDropped)
				}
				return err
			})
			if err != nil {
				return nil, false, fmt.Errorf("lab: line of %s: %w", line.host, err)
			}
		}
		lines[line.host] = u
	}
	return lines, realTime, nil
}
