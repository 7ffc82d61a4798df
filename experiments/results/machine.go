package results

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// ThisProgram returns the commit that the program was built from, as far as it knows, and a digest of its file, which
// tells two builds apart even where no commit does.
func ThisProgram() (commit, program string, err error) {
	var modified string
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = " modified"
			}
		}
	}
	f, err := os.Open("/proc/self/exe") // which works where a directory on the way to the file is closed to this user
	if err != nil {
		path, perr := os.Executable()
		if perr != nil {
			return "", "", fmt.Errorf("results: %w", perr)
		}
		if f, err = os.Open(path); err != nil {
			return "", "", fmt.Errorf("results: %w", err)
		}
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", "", fmt.Errorf("results: %w", err)
	}
	return cmp.Or(commit, "unknown") + modified, hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// Machine is what a measurement was made on. What the system does not tell is empty.
type Machine struct {
	System      string `json:"system"`
	Kernel      string `json:"kernel"`
	CPU         string `json:"cpu"`
	Cores       int    `json:"cores"` // that the program may use
	MemoryBytes int64  `json:"memory_bytes"`
	Go          string `json:"go"`
}

// ThisMachine describes the machine that the program runs on.
func ThisMachine() Machine {
	m := Machine{System: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	m.CPU = procField("/proc/cpuinfo", "model name")
	if kb, ok := strings.CutSuffix(procField("/proc/meminfo", "MemTotal"), " kB"); ok {
		if n, err := strconv.ParseInt(kb, 10, 64); err == nil {
			m.MemoryBytes = n << 10
		}
	}
	return m
}

// procField returns the first value of a field in a file of "name: value" lines.
func procField(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		field, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(field) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// CPUTime is how much time all cores of the machine have been idle since it was started, and that and what they have worked, in the
// kernel's ticks; 0 if the system does not tell.
func CPUTime() (idle, all int64) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(line) { // cpu user nice system idle iowait irq softirq steal, and guests, which are in user
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil || i > 8 {
			continue
		}
		all += n
		if i == 4 || i == 5 {
			idle += n
		}
	}
	return idle, all
}
