package faas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
)

const (
	settingsFile = "function.json"
	maxSettings  = 64 << 10 // bytes
)

// settings is what a file function.json may say of its function.
type settings struct {
	MemoryMB    int               `json:"memory_mb"`
	Timeout     string            `json:"timeout"` // as Go writes durations
	Env         map[string]string `json:"env"`
	Concurrency int               `json:"concurrency"`
	NAT         lab.Kind          `json:"nat"`
	NoFreeze    bool              `json:"no_freeze"`
}

// Load returns the functions below a directory: each directory in it with a program "bootstrap" is one. Beside that a file function.json may
// give, as the fields of [Function], memory_mb, timeout ("30s"), env (an object), concurrency, nat and no_freeze.
func Load(dir string) ([]Function, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("faas: functions: %w", err)
	}
	var all []Function
	for _, e := range entries {
		f := Function{Name: e.Name(), Dir: filepath.Join(dir, e.Name())}
		if _, err := os.Stat(f.program()); err != nil {
			continue // something else
		}
		b, err := readSettings(filepath.Join(f.Dir, settingsFile))
		if err == nil {
			err = f.set(b)
		}
		if err != nil {
			return nil, fmt.Errorf("faas: function %s: %s: %w", f.Name, settingsFile, err)
		}
		all = append(all, f)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("faas: no functions in %s: each is a directory there with a program \"bootstrap\"", dir)
	}
	return all, nil
}

// readSettings returns {} for a file that does not exist.
func readSettings(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []byte("{}"), nil
	case err != nil:
		return nil, err
	case info.Size() > maxSettings:
		return nil, fmt.Errorf("%d bytes, want at most %d", info.Size(), maxSettings)
	}
	return os.ReadFile(path)
}

// set takes what function.json says.
func (f *Function) set(b []byte) error {
	var s settings
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return err
	}
	if s.Timeout != "" {
		var err error
		if f.Timeout, err = time.ParseDuration(s.Timeout); err != nil || f.Timeout <= 0 {
			return fmt.Errorf("timeout %q: want one such as 30s", s.Timeout)
		}
	}
	f.MemoryMB, f.Concurrency, f.NAT, f.NoFreeze = s.MemoryMB, s.Concurrency, s.NAT, s.NoFreeze
	for k, v := range s.Env {
		f.Env = append(f.Env, k+"="+v)
	}
	slices.Sort(f.Env)
	return nil
}
