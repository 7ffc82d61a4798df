package calibration_test

import (
	"context"
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/fnwire/fnwire/experiments/calibration"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/wan"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

// A lab whose host has a line is measured: delay and rate, each way.
func Example() {
	ctx := context.Background()
	line := wan.Even(wan.Path{Delay: 20e6, Rate: 50_000_000})
	l, err := lab.New(ctx, lab.Spec{Hosts: []lab.Host{{Name: "public"}, {Name: "a", NAT: lab.FullCone, Line: line}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	checks, err := calibration.Lab(ctx, l, "public")
	for _, c := range checks {
		fmt.Printf("%s: set to %.2f %s\n", c.What, c.Set, c.Unit)
	}
	fmt.Println(err)
	// Output:
	// line of a, up: delay, median: set to 20.01 ms
	// line of a, up: rate: set to 50.00 Mbit/s
	// line of a, down: delay, median: set to 20.01 ms
	// line of a, down: rate: set to 50.00 Mbit/s
	// <nil>
}

// Every profile is what it says, as far as a machine allows on which others work: nothing is too fast, or too little lost, and what
// is slower than it should be is so by little.
func TestProfiles(t *testing.T) {
	for _, p := range wan.Profiles() {
		t.Run(p.Name, func(t *testing.T) {
			l := labtest.New(t, lab.Host{Name: "public", Line: p.Public}, lab.Host{Name: "a", NAT: lab.PortRestricted, Line: p.Function(0)},
				lab.Host{Name: "b", NAT: lab.PortRestricted, Line: p.Function(1)})
			checks, err := calibration.Lab(t.Context(), l, "public")
			if err != nil {
				t.Fatal(err)
			}
			if (len(checks) == 0) != (p.Name == wan.None) {
				t.Errorf("%d figures", len(checks))
			}
			near(t, checks)
		})
	}
}

// A line that is slow, and long, is measured at its own pace.
func TestSlowLine(t *testing.T) {
	l := labtest.New(t, lab.Host{Name: "public"}, lab.Host{Name: "a", NAT: lab.PortRestricted, Line: wan.Even(wan.Path{Delay: 500e6, Rate: 600_000})})
	checks, err := calibration.Lab(t.Context(), l, "public")
	if err != nil {
		t.Fatal(err)
	}
	near(t, checks)
}

func near(t *testing.T, checks []results.Check) {
	t.Helper()
	for _, c := range checks {
		t.Logf("%s: set %.3f %s, measured %.3f, %+.1f %% (by chance up to %.0f %%)", c.What, c.Set, c.Unit, c.Measured, 100*c.Off(), 100*c.Chance)
		low, high := -0.1, 0.1
		switch {
		case c.Unit == "ms":
			low, high = -0.1-0.03/c.Set, 0.1+0.2/c.Set
		case c.Chance == 0:
			low = -0.4
		}
		if off := c.Off(); math.IsNaN(off) || off < low-2*c.Chance || off > high+2*c.Chance {
			t.Errorf("%s: set %.3f %s, measured %.3f", c.What, c.Set, c.Unit, c.Measured)
		}
	}
}
