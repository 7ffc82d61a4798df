package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/holder"
	"github.com/fnwire/fnwire/experiments/wan"
	"github.com/fnwire/fnwire/internal/cli"
)

// started is what the holder process says on its standard output, once.
type started struct {
	Error string       `json:"error,omitempty"`
	Info  *holder.Info `json:"info,omitempty"`
}

func newLabUp(f *labFlags) *cobra.Command {
	var nats, public []string
	var profile string
	var seed uint64
	var foreground bool
	c := &cobra.Command{
		Use:   "up [--public NAME,...] [--nat NAME=KIND,NAME=@NAME,...]",
		Short: "Raise a lab, and keep it up in the background",
		Long: `Raises a lab and returns when it is ready: "lab exec" runs commands in it, "lab down" ends it.
A host may share the NAT of an earlier one, as @NAME. With cgn each has a home NAT of its own, and they share the carrier's.

` + lab.KindHelp,
		Example: `  experiments lab up --public hub --nat A=port-restricted,B=symmetric
  experiments lab up --public hub --nat A=full-cone,B=symmetric --profile cross-region
  experiments lab up --public hub --nat A=cgn+hairpin,B=@A,C=full-cone+remap+timeout=10s`,
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			spec, err := parseSpec(public, nats)
			if err != nil {
				return cli.Usage(err)
			}
			spec.Seed = seed
			if err := setLines(&spec, profile); err != nil {
				return cli.Usage(err)
			}
			socket, err := f.socket()
			if err != nil {
				return err
			}
			tell := func(info holder.Info) error { return f.print(cmd.OutOrStdout(), info) }
			if foreground {
				return f.explain(hold(cmd.Context(), f.name, socket, spec, tell))
			}
			info, err := detach(cmd.Context(), f.name, socket, spec)
			if err != nil {
				return f.explain(err)
			}
			return tell(info)
		},
	}
	c.Flags().StringSliceVar(&nats, "nat", nil, "hosts behind a NAT: NAME=KIND,... or, sharing the NAT of another, NAME=@NAME")
	c.Flags().StringSliceVar(&public, "public", nil, "public hosts: NAME,...")
	c.Flags().StringVar(&profile, "profile", wan.None, "the network: public hosts and hosts behind a NAT have the lines of "+strings.Join(wan.ProfileNames(), ", "))
	c.Flags().Uint64Var(&seed, "seed", 1, "of what is random on those lines")
	c.Flags().BoolVar(&foreground, "foreground", false, "stay in the foreground; Ctrl-C takes the lab down")
	return c
}

func parseSpec(public, nats []string) (lab.Spec, error) {
	var spec lab.Spec
	for _, name := range public {
		spec.Hosts = append(spec.Hosts, lab.Host{Name: name})
	}
	for _, s := range nats {
		name, kind, ok := strings.Cut(s, "=")
		if !ok || kind == "" {
			return spec, fmt.Errorf("--nat %q: want NAME=KIND or NAME=@NAME, with KIND one of %s", s, kindNames())
		}
		h := lab.Host{Name: name}
		if with, shares := strings.CutPrefix(kind, "@"); shares {
			h.With = with
		} else {
			h.NAT = lab.Kind(kind)
		}
		spec.Hosts = append(spec.Hosts, h)
	}
	return spec, spec.Check()
}

// setLines gives hosts the lines of a profile: behind a NAT those of functions in turn, else that of a server.
func setLines(spec *lab.Spec, profile string) error {
	p, err := wan.FindProfile(profile)
	if err != nil {
		return err
	}
	behind := 0
	for i := range spec.Hosts {
		switch h := &spec.Hosts[i]; {
		case h.With != "":
		case h.NAT == "":
			h.Line = p.Public
		default:
			h.Line = p.Function(behind)
			behind++
		}
	}
	return nil
}

// newLabHold is the process that up leaves in the background.
func newLabHold(f *labFlags) *cobra.Command {
	var socket, specJSON string
	c := &cobra.Command{
		Use:    "hold",
		Hidden: true,
		Args:   cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var spec lab.Spec
			err := json.Unmarshal([]byte(specJSON), &spec)
			if err == nil {
				err = hold(cmd.Context(), f.name, socket, spec, func(info holder.Info) error {
					if err := cli.PrintJSON(os.Stdout, started{Info: &info}); err != nil {
						return err
					}
					return silence()
				})
			}
			if err != nil {
				_ = cli.PrintJSON(os.Stdout, started{Error: err.Error()})
			}
			return err
		},
	}
	c.Flags().StringVar(&socket, "socket", "", "")
	c.Flags().StringVar(&specJSON, "spec", "", "")
	return c
}

// silence lets go of the standard output, which nobody reads any longer.
func silence() error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	return unix.Dup3(int(null.Fd()), int(os.Stdout.Fd()), 0)
}

// hold makes a lab and serves it until ctx ends or it is taken down.
func hold(ctx context.Context, name, socket string, spec lab.Spec, ready func(holder.Info) error) error {
	if err := lab.Enter(); err != nil {
		return err
	}
	ln, err := holder.Listen(socket)
	if err != nil {
		return err
	}
	defer holder.Cleanup(socket)
	defer ln.Close()
	l, err := lab.New(ctx, spec)
	if err != nil {
		return err
	}
	if err := ready(holder.Info{Name: name, Pid: os.Getpid(), Hosts: l.Hosts()}); err != nil {
		return errors.Join(err, l.Close())
	}
	return holder.Serve(ctx, ln, l, name)
}

// detach starts this program as a holder in a session of its own, and waits until the lab is ready.
func detach(ctx context.Context, name, socket string, spec lab.Spec) (holder.Info, error) {
	specJSON, err := json.Marshal(spec)
	if err != nil {
		return holder.Info{}, err
	}
	cmd := exec.Command("/proc/self/exe", "lab", "hold", "--name", name, "--socket", socket, "--spec", string(specJSON))
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return holder.Info{}, err
	}
	if err := cmd.Start(); err != nil {
		return holder.Info{}, fmt.Errorf("start the process that holds the lab: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	var s started
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s)
	}
	if !stop() {
		_ = cmd.Wait()
		return holder.Info{}, ctx.Err()
	}
	switch {
	case errors.Is(err, io.EOF):
		_ = cmd.Wait()
		err = fmt.Errorf("the process that holds the lab ended before it was ready: %v", cmd.ProcessState)
	case err != nil:
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	case s.Info == nil:
		_ = cmd.Wait()
		err = &heldError{s.Error}
	default:
		return *s.Info, cmd.Process.Release()
	}
	return holder.Info{}, err
}

// heldError is an error of the holder process, by its text.
type heldError struct{ text string }

func (e *heldError) Error() string { return e.text }

func (e *heldError) Is(target error) bool {
	return target == holder.ErrInUse && strings.Contains(e.text, holder.ErrInUse.Error())
}
