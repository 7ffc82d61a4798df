//go:build !linux

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"

	"github.com/fnwire/fnwire/experiments/wan"
)

// Lab is a running lab: on this system there is none.
type Lab struct{}

// Proc is a process inside a host of a lab.
type Proc struct{}

func unavailable() error {
	return fmt.Errorf("%w: they exist on Linux only, and this is %s", ErrUnavailable, runtime.GOOS)
}

// Enter returns an error that wraps [ErrUnavailable].
func Enter() error { return unavailable() }

// New returns an error that wraps [ErrUnavailable].
func New(context.Context, Spec) (*Lab, error) { return nil, unavailable() }

func (*Lab) Close() error                                            { return nil }
func (*Lab) HasDisk() bool                                           { return false }
func (*Lab) Hosts() []HostInfo                                       { return nil }
func (*Lab) Addr(string) netip.Addr                                  { return netip.Addr{} }
func (*Lab) PublicAddr(string) netip.Addr                            { return netip.Addr{} }
func (*Lab) Addr6(string) netip.Addr                                 { return netip.Addr{} }
func (*Lab) Do(string, func() error) error                           { return unavailable() }
func (*Lab) Start(context.Context, string, *exec.Cmd) (*Proc, error) { return nil, unavailable() }
func (*Lab) Sweep(string) error                                      { return unavailable() }
func (*Lab) Block(string, string) (func() error, error)              { return nil, unavailable() }
func (*Lab) BlockOneWay(string, string) (func() error, error)        { return nil, unavailable() }
func (*Lab) BlockUDP(string, string) (func() error, error)           { return nil, unavailable() }
func (*Lab) Lose(string, string, int) (func() error, error)          { return nil, unavailable() }
func (*Lab) Lines() (map[string]wan.Usage, bool, error)              { return nil, false, unavailable() }
func (*Lab) Narrow(string, string, int) (func() error, error)        { return nil, unavailable() }
func (*Lab) NarrowLine(string, int) (func() error, error)            { return nil, unavailable() }
func (*Lab) Reorder(string, int, uint64) (func() error, error)       { return nil, unavailable() }
func (*Lab) LoseBatches(string) (func() error, error)                { return nil, unavailable() }
func (*Lab) RebootNAT(string) error                                  { return unavailable() }
func (*Lab) ChangePublicAddr(string) (netip.Addr, error)             { return netip.Addr{}, unavailable() }
func (*Lab) ChangeAddr(string) (netip.Addr, error)                   { return netip.Addr{}, unavailable() }
func (*Lab) AddNetwork(string, netip.Prefix) error                   { return unavailable() }
func (*Proc) Wait() error                                            { return unavailable() }
func (*Proc) Signal(os.Signal) error                                 { return unavailable() }
func (*Proc) Pid() int                                               { return 0 }
func (*Proc) State() *os.ProcessState                                { return nil }

// StartWithTemp returns an error that wraps [ErrUnavailable].
func (*Lab) StartWithTemp(context.Context, string, *exec.Cmd, int64) (*Proc, error) {
	return nil, unavailable()
}
