//go:build !linux

package faas

import (
	"errors"
	"os"

	"github.com/fnwire/fnwire/experiments/lambdaapi"
)

type output struct{ w *os.File }

func newOutput(string, lambdaapi.Function) (*output, error) {
	return nil, errors.New("functions run on Linux only")
}

func (*output) begin(string)           {}
func (*output) end(*Invocation) []byte { return nil }
func (*output) close()                 {}

func maxRSS(int) int64 { return 0 }
