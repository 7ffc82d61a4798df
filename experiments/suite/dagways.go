package suite

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fnwire/fnwire/experiments/dag"
	"github.com/fnwire/fnwire/experiments/peer/wukong3"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/world"
	"github.com/fnwire/fnwire/fnlib"
)

// Ports of the public host.
const (
	platformPort    = 9000
	boardPort       = 9001
	coordinatorPort = 9002
)

// wukongCauses are what may be taken from wukong3, by the name that a way has it taken by, in the order of the ladder.
func wukongCauses() []wukongCause {
	return []wukongCause{
		{"rate", "links of 55 Mb/s, and 64 KiB under way", func(c *dag.WukongConfig) { c.Causes.Rate, c.Causes.Window = 0, 0 }},
		{"early", "receivers claimed early", func(c *dag.WukongConfig) { c.Early = false }},
		{"socket", "a socket and a connection to the coordinator for each pairing", func(c *dag.WukongConfig) { c.Causes.NewSocket = false }},
		{"serial", "one pairing after the other", func(c *dag.WukongConfig) { c.Causes.Serial = false }},
		{"resend", "handshakes sent again after 250 ms", func(c *dag.WukongConfig) { c.Causes.Resend = 0 }},
		{"home", "the coordinator at the author's home, behind an access line", nil}, // see coordinatorAt
	}
}

type wukongCause struct {
	name, what string
	take       func(*dag.WukongConfig)
}

// wukongLadder are the ways from wukong3 with all causes to that with none, one less at a time.
func wukongLadder() []string {
	ways := []string{dag.Wukong}
	for _, c := range wukongCauses() {
		ways = append(ways, ways[len(ways)-1]+"-"+c.name)
	}
	return ways
}

func wukongHelp() string {
	var what []string
	for _, c := range wukongCauses() {
		what = append(what, "-"+c.name+" ("+c.what+")")
	}
	return "wukong3, from which causes may be taken away: " + strings.Join(what, ", ")
}

// wukongWay returns what a way is without.
func wukongWay(way string) (dag.WukongConfig, error) {
	c := dag.WukongConfig{Causes: wukong3.All(), Early: true}
	causes := wukongCauses()
	for _, name := range strings.Split(way, "-")[1:] {
		i := slices.IndexFunc(causes, func(c wukongCause) bool { return c.name == name })
		if i < 0 {
			return c, fmt.Errorf("%q: %q is no cause of %s", way, name, wukongHelp())
		}
		if take := causes[i].take; take != nil {
			take(&c)
		}
	}
	return c, nil
}

// coordinatorAt is the host of a way's coordinator.
func coordinatorAt(way string) string {
	if slices.Contains(strings.Split(way, "-"), "home") {
		return world.Public
	}
	return homeHost
}

const homeHost = "home"

func isStore(way string) bool { return way == wayRedis || way == wayS3 || way == wayNATS }

func isWukong(way string) bool { return way == dag.Wukong || strings.HasPrefix(way, dag.Wukong+"-") }

// dagWays are the ways of the settings; "ladder" is those of wukongLadder.
func (r *run) dagWays() (ways []string, err error) {
	known := []string{dag.Fnwire, dag.Last, dag.Auto, dag.Lazy, dag.Relay, wayRedis, wayS3, wayNATS}
	for _, way := range r.list("ways") {
		switch {
		case way == "ladder":
			ways = append(ways, wukongLadder()...)
			continue
		case isWukong(way):
			_, err = wukongWay(way)
		case !slices.Contains(known, way):
			err = fmt.Errorf("no %q: there are %s, ladder, wukong3", way, strings.Join(known, ", "))
		}
		if err != nil {
			return nil, fmt.Errorf("%w: ways: %w", ErrSettings, err)
		}
		ways = append(ways, way)
	}
	slices.Sort(ways)
	return slices.Compact(ways), nil
}

// env is the environment of the function of a way. A store is started for it.
func (d *dagRun) env(way string) ([]string, error) {
	switch {
	case isWukong(way):
		c, err := wukongWay(way)
		if err != nil {
			return nil, err
		}
		at := netip.AddrPortFrom(d.w.Lab().Addr(coordinatorAt(way)), coordinatorPort)
		c.Coordinator, c.Certificate = at, d.coordinator.Certificate()
		c.Causes.Resend, c.Causes.Rate = c.Causes.Resend*time.Duration(d.r.slow()), c.Causes.Rate/int64(d.r.slow())
		b, err := json.Marshal(c)
		return []string{dag.EnvWay + "=" + dag.Wukong, dag.EnvWukong + "=" + string(b)}, err
	case isStore(way):
		s, err := d.stores.open(d.w, &results.Record{}, way)
		if err != nil {
			return nil, err
		}
		env := []string{dag.EnvWay + "=" + dag.Store, fnlib.EnvStore + "=" + s.URL}
		for _, name := range slices.Sorted(maps.Keys(s.Env)) {
			env = append(env, name+"="+s.Env[name])
		}
		return env, nil
	}
	join := d.w.JoinArgs("")
	return []string{dag.EnvWay + "=" + way, fnlib.EnvURL + "=" + join.URL, fnlib.EnvJobKey + "=" + join.Key}, nil
}

// serve serves what functions talk to, on the public host, until close.
func (d *dagRun) serve() error {
	for port, h := range map[int]http.Handler{boardPort: d.board, platformPort: d.platform} {
		l, err := d.listen(port)
		if err != nil {
			return err
		}
		s := &http.Server{Handler: h, ReadHeaderTimeout: dagTimeout}
		d.serving.Go(func() { _ = s.Serve(l) })
		d.stops = append(d.stops, func() { _ = s.Close() })
	}
	return d.coordinate()
}

// coordinate has the coordinator of wukong3 serve on each host that it may be at.
func (d *dagRun) coordinate() error {
	ctx, cancel := context.WithCancel(d.life)
	d.stops = append(d.stops, cancel)
	for _, host := range []string{world.Public, homeHost} {
		var l net.Listener
		var udp net.PacketConn
		at := netip.AddrPortFrom(d.w.Lab().Addr(host), coordinatorPort)
		err := d.w.Lab().Do(host, func() (err error) {
			if l, err = net.Listen("tcp4", at.String()); err != nil {
				return err
			}
			if udp, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err != nil {
				return errors.Join(err, l.Close())
			}
			return nil
		})
		if err != nil {
			return err
		}
		d.serving.Go(func() { _ = d.coordinator.Serve(ctx, l, udp) }) // functions say what they miss
	}
	return nil
}

func (d *dagRun) listen(port int) (l net.Listener, err error) {
	return l, d.w.Lab().Do(world.Public, func() (err error) { l, err = net.Listen("tcp4", d.at(port).String()); return err })
}

func (d *dagRun) at(port int) netip.AddrPort {
	return netip.AddrPortFrom(d.w.Lab().Addr(world.Public), uint16(port))
}

func (d *dagRun) url(port int) string { return "http://" + d.at(port).String() }
