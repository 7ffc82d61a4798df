package wan_test

import (
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/wan"
)

func TestSlowed(t *testing.T) {
	of, err := wan.FindProfile("aws-region")
	if err != nil {
		t.Fatal(err)
	}
	p, err := wan.FindProfile("aws-region/8")
	if err != nil {
		t.Fatal(err)
	}
	a, b := of.Function(3).Up, p.Function(3).Up
	if b.Delay != 8*a.Delay || b.Rate != a.Rate/8 || b.Queue != int(float64(a.Rate)/8*0.01) || p.Slow != 8 || p.Name != "aws-region/8" {
		t.Errorf("%+v slowed is %+v", a, b)
	}
	if b.Gather != 8*wan.Gather || a.Gather != 0 || p.Slowed(2).Function(3).Up.Gather != 16*wan.Gather {
		t.Errorf("packets are gathered for %v, and slowed for %v", a.Gather, b.Gather)
	}
	for _, p := range wan.Profiles()[1:] {
		if err := p.Slowed(wan.MostSlow).Check(); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		if plain := p.Public == (wan.Line{}); plain != (p.Slowed(8).Public == (wan.Line{})) {
			t.Errorf("%s: plain cable of the public host: %v; slowed: %+v", p.Name, plain, p.Slowed(8).Public)
		}
		for _, l := range p.Slowed(3).Functions {
			if p.Name == "lossy" && l.Up.OutageEvery != 3*time.Minute {
				t.Errorf("%+v", l)
			}
		}
	}
	for _, name := range []string{"none/8", "aws-region/", "aws-region/1", "aws-region/257", "x/8", "lan/2/2", "lan/-2"} {
		if p, err := wan.FindProfile(name); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}
