package lab_test

import (
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
)

// The first packet through a new lab gets there, and does not wait for an interface that is not up.
func TestReadyAtOnce(t *testing.T) {
	for range 10 {
		l := labtest.New(t, lab.Host{Name: "x"}, lab.Host{Name: "h", NAT: lab.PortRestricted})
		x, h := listen(t, l, "x", 0), listen(t, l, "h", 0)
		start := time.Now()
		h.send(at(l, "x", x), "first")
		x.want("first")
		if took := time.Since(start); took > 900*time.Millisecond { // ARP is repeated after 1 s
			t.Errorf("the first packet took %v", took)
		}
		l.Close()
	}
}
