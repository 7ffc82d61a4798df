package faas

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fnwire/fnwire/experiments/lambdaapi"
)

const (
	tailBytes = 4 << 10
	maxLog    = 64 << 20
	pipeBytes = 64 << 10 // what a pipe of Linux holds
)

// output is the log of an instance: what its process prints, and the lines that Lambda adds. It reads the pipe itself, so
// that all that was printed before an answer can be told from what comes after.
type output struct {
	r, w *os.File
	raw  syscall.RawConn // of r
	fn   lambdaapi.Function
	done chan struct{} // closed when nobody reads any more

	mu   sync.Mutex // guards what follows
	file *os.File   // nil: not kept
	kept int
	tail []byte
}

// newOutput makes a log that is kept in a file, if that has a name.
func newOutput(file string, fn lambdaapi.Function) (o *output, err error) {
	o = &output{fn: fn, done: make(chan struct{})}
	if file != "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, err
		}
		if o.file, err = os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
			return nil, err
		}
	}
	if o.r, o.w, err = os.Pipe(); err == nil {
		o.raw, err = o.r.SyscallConn()
	}
	if err != nil {
		_ = o.file.Close()
		return nil, err
	}
	go func() {
		defer close(o.done)
		_ = o.raw.Read(func(fd uintptr) bool { return o.drain(fd) }) // until close
	}()
	return o, nil
}

// drain reads what is in the pipe, and reports whether there will not be more.
func (o *output) drain(fd uintptr) (over bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	buf := make([]byte, pipeBytes)
	for read := 0; read < pipeBytes; {
		n, err := unix.Read(int(fd), buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return false
		case n <= 0:
			return true
		}
		read += n
		o.write(buf[:n])
	}
	return false
}

// write adds to the log. It runs under mu.
func (o *output) write(b []byte) {
	if o.tail = append(o.tail, b...); len(o.tail) > tailBytes {
		o.tail = bytes.Clone(o.tail[len(o.tail)-tailBytes:])
	}
	if o.file == nil || o.kept > maxLog {
		return
	}
	if o.kept += len(b); o.kept > maxLog {
		b = []byte("\n(the rest is not kept)\n")
	}
	_, _ = o.file.Write(b) // a log that cannot be written is not worth an instance
}

// flush takes all that the process has printed so far.
func (o *output) flush() {
	_ = o.raw.Control(func(fd uintptr) { o.drain(fd) }) // it is closed after the last invocation
}

// begin begins the part of an event.
func (o *output) begin(request string) {
	o.flush()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail = nil
	o.write(fmt.Appendf(nil, "START RequestId: %s Version: $LATEST\n", request))
}

// end ends it with the lines that Lambda writes, and the kind of the start, and returns the last part of the log.
func (o *output) end(v *Invocation) []byte {
	o.flush()
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.tail); n > 0 && o.tail[n-1] != '\n' {
		o.write([]byte("\n"))
	}
	b := fmt.Appendf(nil, "END RequestId: %s\nREPORT RequestId: %s\tDuration: %.2f ms\tBilled Duration: %d ms\tMemory Size: %d MB\tMax Memory Used: %d MB\t",
		v.Request, v.Request, v.BusyMS, v.BilledMS, v.MemoryMB, v.MaxRSS>>20)
	if v.Start == Cold {
		b = fmt.Appendf(b, "Init Duration: %.2f ms\t", v.InitMS)
	}
	switch v.Error {
	case lambdaapi.TimedOut:
		b = append(b, "Status: timeout\t"...)
	case "":
	default:
		b = fmt.Appendf(b, "Status: error\tError Type: %.100q\t", v.Error)
	}
	o.write(fmt.Appendf(b, "Start: %s\n", v.Start))
	return bytes.Clone(o.tail)
}

// close takes what is left, and ends the log.
func (o *output) close() {
	o.flush()
	_ = o.w.Close()
	_ = o.r.Close()
	<-o.done
	if o.file != nil {
		_ = o.file.Close()
	}
}

// maxRSS is the most memory that a process has had resident, in bytes; 0 if it has ended. What wait(2) tells of it then counts
// the memory of who has started it, too.
func maxRSS(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(b), "VmHWM:")
	kb, _, _ := strings.Cut(strings.TrimSpace(after), " ")
	n, _ := strconv.ParseInt(kb, 10, 64)
	return n << 10
}
