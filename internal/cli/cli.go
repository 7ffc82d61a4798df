// Package cli is what the commands have in common: how they start, stop, log, and tell of errors.
// It never decides what a command does.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes of every command.
const (
	ExitOK       = 0
	ExitFailed   = 1
	ExitUsage    = 2
	ExitCanceled = 130 // Ctrl-C, as shells have it
)

// Main runs root and returns the exit code. SIGINT, SIGTERM and, unless nohup has it ignored, SIGHUP cancel the command's
// context; another SIGINT or SIGTERM ends the process at once. An error is one line on stderr.
func Main(root *cobra.Command) int {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	defer stop()
	context.AfterFunc(ctx, func() {
		signal.Ignore(syscall.SIGHUP) // of a terminal that is closed comes one from the kernel and one from the shell
		stop()
	})

	root.SilenceErrors = true
	root.SilenceUsage = true
	root.Version = Version()
	flagError := root.FlagErrorFunc()
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return Usage(flagError(cmd, err)) })
	err := root.ExecuteContext(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "%s: %v (see --help)\n", root.Name(), err)
		return ExitUsage
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintf(os.Stderr, "%s: interrupted\n", root.Name())
		return ExitCanceled
	default:
		fmt.Fprintf(os.Stderr, "%s: %v\n", root.Name(), err)
		return ExitFailed
	}
}

type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Usage marks err as the caller's mistake: exit code 2.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{err}
}

// Args turns cobra's complaint about the number of arguments into a usage error.
func Args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error { return Usage(check(cmd, args)) }
}

// Version tells module version, commit and platform from the build information.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v, dirty := info.Main.Version, ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12 && (v == "" || v == "(devel)"):
			v = "devel " + s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = " modified"
		}
	}
	return fmt.Sprintf("%s%s %s %s/%s", v, dirty, info.GoVersion, runtime.GOOS, runtime.GOARCH)
}

// Env returns the value of an environment variable, or def if it is unset or empty.
func Env(name, def string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return def
}

// Logger writes to w from the given level ("debug", "info", "warn", "error") on, as text or JSON.
func Logger(w io.Writer, level string, asJSON bool) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, Usage(fmt.Errorf("log level %q: want debug, info, warn or error", level))
	}
	opts := &slog.HandlerOptions{Level: l}
	if asJSON {
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return slog.New(slog.NewTextHandler(w, opts)), nil
}

// PrintJSON writes v as one line.
func PrintJSON(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }
