package main

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/internal/cli"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
	"github.com/fnwire/fnwire/transport"
)

// lines reads one JSON object a line.
func lines[T any](t *testing.T, text string) (all []T) {
	t.Helper()
	for line := range strings.Lines(text) {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		all = append(all, v)
	}
	return all
}

func TestPing(t *testing.T) {
	env, _ := startDev(t)
	r := env.startReceive(t, "b", "--count", "0", "--out", t.TempDir())
	p := env.run(t, "ping", "b", "--count", "3", "--interval", "10ms", "--json").want(cli.ExitOK)
	all := lines[pingReport](t, p.out.String())
	if len(all) != 4 {
		t.Fatalf("%d lines, want 3 answers and a summary", len(all))
	}
	sum := lines[pingSummary](t, p.out.String())[3]
	if !sum.OK || !sum.Summary || sum.Count != 3 || sum.Min <= 0 || sum.Min > sum.Median || sum.Median > sum.P95 || sum.P95 > sum.Max ||
		sum.Path != all[2].Path || sum.Remote != all[2].Remote {
		t.Errorf("%+v", sum)
	}
	for i, one := range all[:3] {
		if !one.OK || one.Name != "b" || one.Seq != i+1 || one.RTT <= 0 || one.Path == "" || one.Remote == "" {
			t.Errorf("%+v", one)
		}
		if one.Path == "relay" && (one.Reason == "" || one.Why == "") {
			t.Errorf("relayed without a reason: %+v", one)
		}
	}
	p = env.run(t, "ping", "b", "-c", "1", "--path", "relay").want(cli.ExitOK)
	if got := p.out.String(); !strings.HasPrefix(got, "b: ") || !strings.Contains(got, "relay dev-1 (no direct path: asked for relay only") ||
		!strings.Contains(got, "1 pings, RTT min") || !strings.Contains(got, "NAT here: ") {
		t.Errorf("%q", got)
	}
	p = env.run(t, "ping", "b", "-c", "1", "--path", "direct").want(cli.ExitOK)
	if got := p.out.String(); !strings.Contains(got, ", direct ") {
		t.Errorf("%q", got)
	}
	endless := env.start(t, nil, "ping", "b", "-c", "0", "-i", "1ms")
	endless.await(&endless.out, "b: ")
	endless.interrupt()
	endless.want(cli.ExitOK)
	if !strings.Contains(endless.out.String(), " pings, RTT min ") {
		t.Errorf("no summary in %q", &endless.out)
	}
	r.interrupt()
	r.want(cli.ExitOK)
}

func TestList(t *testing.T) {
	env, _ := startDev(t)
	if p := env.run(t, "ls").want(cli.ExitOK); p.out.String() != "" {
		t.Errorf("nobody is there, and ls prints %q", &p.out)
	}
	b := env.startReceive(t, "b", "--count", "0", "--out", t.TempDir())
	a := env.startReceive(t, "a", "--count", "0", "--out", t.TempDir())
	p := env.run(t, "ls", "--json").want(cli.ExitOK)
	var names []string
	for _, m := range lines[rendezvous.Member](t, p.out.String()) {
		names = append(names, m.Name)
		if m.Epoch == 0 || m.Peer == "" {
			t.Errorf("%+v", m)
		}
	}
	if !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("names: %q", names)
	}
	a.interrupt()
	a.want(cli.ExitOK)
	p = env.run(t, "ls").want(cli.ExitOK)
	if got := strings.Fields(p.out.String()); len(got) != 6 || got[0] != "NAME" || got[3] != "b" {
		t.Errorf("ls: %q", &p.out)
	}
	b.interrupt()
	b.want(cli.ExitOK)
}

func TestNetcheck(t *testing.T) {
	env, dev := startDev(t, "--relays", "2")
	p := env.run(t, "netcheck", "--json").want(cli.ExitOK)
	var r netReport
	p.decode(&p.out, &r)
	if !r.OK || !strings.HasPrefix(r.Name, "cli-") || len(r.Candidates) == 0 || len(r.STUN) != 4 || len(r.NAT.Reflexive) == 0 || r.Join.Total <= 0 {
		t.Errorf("%+v", r)
	}
	if len(r.Problems) != 0 {
		t.Errorf("problems: %q", r.Problems)
	}
	if r.NAT.Mapping != "none" || r.NAT.Filtering != "not-port" || r.NAT.Hairpin != "no NAT" || !r.UDP || r.HTTPS != "untested" {
		t.Errorf("%+v", r)
	}
	homes := 0
	for i, one := range r.Relays {
		if one.ID != dev.Relays[i].ID || one.Addr != dev.Relays[i].Addr || one.State != "bound" || one.Error != "" {
			t.Errorf("%+v", one)
		}
		if one.Home {
			homes++
		}
	}
	if len(r.Relays) != 2 || homes != 1 {
		t.Errorf("%d relays, %d of them home", len(r.Relays), homes)
	}
	p = env.run(t, "netcheck").want(cli.ExitOK)
	for _, want := range []string{"candidates", "NAT mapping", "STUN servers", "relay dev-1", "relay dev-2", "bound", "home", "NAT filtering", "what to expect", "random ports: direct at once"} {
		if !strings.Contains(p.out.String(), want) {
			t.Errorf("netcheck does not tell %q:\n%s", want, &p.out)
		}
	}
}

// TestNetcheckDeadRelay holds that a relay that does not answer is told with what may be wrong.
func TestNetcheckDeadRelay(t *testing.T) {
	dead, err := net.ListenPacket("udp4", "127.0.0.1:0") // takes packets and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	addr := netip.MustParseAddrPort(dead.LocalAddr().String())
	key := job.NewKey()
	s, err := server.New(server.Config{
		Allow: []job.ID{key.ID()}, Relays: []rendezvous.RelayInfo{{ID: "dead", Addr: addr, STUN: []netip.AddrPort{addr}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-s.Ready():
	case <-ctx.Done():
		t.Fatal("the rendezvous does not start")
	}
	p := environment{"FNWIRE_URL=" + s.URL(), "FNWIRE_JOB_KEY=" + key.Encode()}.run(t, "netcheck", "--json").want(cli.ExitOK)
	var r netReport
	p.decode(&p.out, &r)
	if r.OK || len(r.Relays) != 1 || r.Relays[0].State != "silent" || r.Relays[0].Error == "" || r.NAT.Mapping != "unknown" {
		t.Errorf("%+v", r)
	}
	for _, want := range []string{"relay dead: ", "nothing answers over UDP", "no STUN server answers"} {
		if !strings.Contains(strings.Join(r.Problems, "\n"), want) {
			t.Errorf("no problem %q in %q", want, r.Problems)
		}
	}
	if p.err.String() != "" {
		t.Errorf("stderr: %q", &p.err)
	}
}

// What is expected agrees with what package punch does, and with what a lenient filter spares it.
func TestExpect(t *testing.T) {
	order := []string{"open", "stable", "sequential", "random", "blocked"}
	for i, want := range map[int][]string{
		0: {outcomeDirect, outcomeDirect, outcomeDirect, outcomeDirect, outcomeRelay},
		1: {outcomeDirect, outcomeDirect, outcomePredicted, outcomeBirthday, outcomeRelay},
		2: {outcomeDirect, outcomePredicted, outcomePredicted, outcomeRelay, outcomeRelay},
		3: {outcomeDirect, outcomeBirthday, outcomeRelay, outcomeRelay, outcomeRelay},
		4: {outcomeRelay, outcomeRelay, outcomeRelay, outcomeRelay, outcomeRelay},
	} {
		for j, k := range peerKinds {
			if got := expect(peerKinds[i].natSide, k.natSide); got != want[j] || outcomes[got] == "" {
				t.Errorf("%s against %s: %s, want %s", order[i], order[j], got, want[j])
			}
		}
	}
	for _, e := range expectations(transport.NAT{}, transport.FilteringUnknown, false) {
		if e.Outcome == outcomePredicted || e.Outcome == outcomeBirthday {
			t.Errorf("from nothing: %+v", e)
		}
	}
	for _, e := range expectations(transport.NAT{}, transport.FilteringUnknown, true)[:4] {
		if e.Outcome != outcomeDirect {
			t.Errorf("with a port that the router forwards: %+v", e)
		}
	}
}

func TestJudge(t *testing.T) {
	var r netReport
	r.judge(0)
	if got := strings.Join(r.Problems, "\n"); !strings.Contains(got, "no relay") || !strings.Contains(got, "STUN") {
		t.Errorf("%q", got)
	}
	r = netReport{Relays: []relayReport{{ID: "r"}}}
	r.judge(0)
	if got := strings.Join(r.Problems, "\n"); !strings.Contains(got, "nothing answers over UDP") {
		t.Errorf("%q", got)
	}
}

func TestKeygen(t *testing.T) {
	none := environment{}
	p := none.run(t, "keygen", "--json").want(cli.ExitOK)
	var r keyReport
	p.decode(&p.out, &r)
	key, err := job.ParseKey(r.JobKey)
	if err != nil || key.ID() != r.JobID {
		t.Fatalf("%v, %+v", err, r)
	}
	p = environment{"FNWIRE_JOB_KEY=" + r.JobKey}.run(t, "keygen", "--id").want(cli.ExitOK)
	if got := strings.TrimSpace(p.out.String()); got != r.JobID.String() {
		t.Errorf("--id: %q, want %q", got, r.JobID)
	}
	p = environment{"FNWIRE_JOB_KEY=" + r.JobKey}.run(t, "keygen").want(cli.ExitOK)
	text := p.out.String()
	if !strings.HasPrefix(text, "export FNWIRE_JOB_KEY=") || strings.Contains(text, r.JobKey) || !strings.Contains(text, "\n# job ID: ") {
		t.Errorf("%q", text)
	}
}

// A relay over HTTPS is told of, and not used while UDP works.
func TestNetcheckHTTPS(t *testing.T) {
	env, dev := startDev(t, "--https")
	if len(dev.Relays) != 1 || !strings.HasPrefix(dev.Relays[0].HTTPS, "127.0.0.1:") {
		t.Errorf("%+v", dev.Relays)
	}
	p := env.run(t, "netcheck", "--json").want(cli.ExitOK)
	var r netReport
	p.decode(&p.out, &r)
	if len(r.Relays) != 1 || r.Relays[0].Via != "udp" || len(r.Problems) > 0 || r.HTTPS != "yes" ||
		r.Relays[0].HTTPS != dev.Relays[0].HTTPS || r.Relays[0].HTTPSRTT <= 0 {
		t.Errorf("%+v", r)
	}
}
