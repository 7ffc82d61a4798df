package lambdaapi

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"time"
)

// MaxPayload is how many bytes an event or a response may have: 6 MiB and 100 bytes, as Lambda counts.
const MaxPayload = 6<<20 + 100

// DefaultTimeout is how long an invocation may take unless the function says otherwise.
const DefaultTimeout = 3 * time.Second

const (
	defaultInit   = 10 * time.Second
	defaultGrace  = 500 * time.Millisecond
	defaultMemory = 128
)

// Config says what runs, and how. Command is required.
type Config struct {
	ID       string   // of the instance, in the name of its log stream; empty: 32 random hexadecimal digits
	Command  []string // the function's program ("bootstrap") and its arguments
	Dir      string   // its working directory, and LAMBDA_TASK_ROOT; empty: this process's
	Env      []string // KEY=VALUE, besides what Lambda sets; nothing else of this process's environment is handed down
	Function Function
	// Listener is where the process finds the API; nil: a free port of 127.0.0.1. The instance closes it.
	Listener net.Listener
	// Start starts the process, such as in a host of the lab; nil: StartProcess.
	Start func(*exec.Cmd) (Process, error)
	// Freezer stops it and lets it go on; nil: SIGSTOP and SIGCONT to its process group. The instance closes it.
	Freezer Freezer
	// NoFreeze leaves an instance running while it waits.
	NoFreeze bool
	Output   io.Writer     // of the process, both; nil discards it
	Init     time.Duration // how long the process may take to ask for its first event; 0 is 10 s
	Grace    time.Duration // between SIGTERM and SIGKILL; 0 is 500 ms
	Logger   *slog.Logger  // nil discards
}

// Function describes the function, as its process is told.
type Function struct {
	Name     string        // empty: "function"
	Version  string        // empty: "$LATEST"
	Region   string        // empty: "us-east-1"
	Handler  string        // empty: "bootstrap"
	MemoryMB int           // told, not enforced; 0 is 128
	Timeout  time.Duration // of an invocation; 0 is 3 s
}

// ARN is the function's name to the world, with the account 000000000000.
func (f Function) ARN() string {
	f = f.filled()
	return fmt.Sprintf("arn:aws:lambda:%s:000000000000:function:%s", f.Region, f.Name)
}

func (f Function) filled() Function {
	f.Name, f.Version = cmp.Or(f.Name, "function"), cmp.Or(f.Version, "$LATEST")
	f.Region, f.Handler = cmp.Or(f.Region, "us-east-1"), cmp.Or(f.Handler, "bootstrap")
	f.MemoryMB, f.Timeout = cmp.Or(f.MemoryMB, defaultMemory), cmp.Or(f.Timeout, DefaultTimeout)
	return f
}

// Process is a started process and what it has started. *lab.Proc is one.
type Process interface {
	// Wait waits for its end, and may be called more than once.
	Wait() error
	// Signal sends a signal to all of its process group.
	Signal(os.Signal) error
}

// Freezer stops the processes of one instance.
type Freezer interface {
	// Attach is called before the process is started.
	Attach(*exec.Cmd)
	// Freeze and Thaw return when it is done.
	Freeze() error
	Thaw() error
	// Close kills what is left.
	Close() error
}

func (c *Config) check() error {
	if len(c.Command) == 0 {
		return errors.New("no command")
	}
	c.Function, c.ID = c.Function.filled(), cmp.Or(c.ID, newID())
	c.Init, c.Grace = cmp.Or(c.Init, defaultInit), cmp.Or(c.Grace, defaultGrace)
	if c.Start == nil {
		c.Start = StartProcess
	}
	if c.Output == nil {
		c.Output = io.Discard
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// environment is what the process finds (Developer Guide, "Defined runtime environment variables").
func (c *Config) environment(api string) []string {
	f := c.Function
	return append([]string{
		"AWS_LAMBDA_RUNTIME_API=" + api,
		"AWS_LAMBDA_FUNCTION_NAME=" + f.Name,
		"AWS_LAMBDA_FUNCTION_VERSION=" + f.Version,
		fmt.Sprintf("AWS_LAMBDA_FUNCTION_MEMORY_SIZE=%d", f.MemoryMB),
		"AWS_LAMBDA_INITIALIZATION_TYPE=on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME=/aws/lambda/" + f.Name,
		"AWS_LAMBDA_LOG_STREAM_NAME=" + time.Now().UTC().Format("2006/01/02") + "/[" + f.Version + "]" + c.ID,
		"AWS_REGION=" + f.Region, "AWS_DEFAULT_REGION=" + f.Region,
		"_HANDLER=" + f.Handler, "LAMBDA_TASK_ROOT=" + cmp.Or(c.Dir, "."),
		"LANG=en_US.UTF-8", "TZ=:UTC", "PATH=/usr/local/bin:/usr/bin:/bin",
	}, c.Env...)
}
