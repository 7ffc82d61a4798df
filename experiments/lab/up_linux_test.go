package lab_test

import (
	"testing"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
)

// The first packet through a new lab gets there: all interfaces are up.
func TestReadyAtOnce(t *testing.T) {
	for range 10 {
		l := labtest.New(t, lab.Host{Name: "x"}, lab.Host{Name: "h", NAT: lab.PortRestricted})
		x, h := listen(t, l, "x", 0), listen(t, l, "h", 0)
		h.send(at(l, "x", x), "first")
		x.want("first")
		l.Close()
	}
}
