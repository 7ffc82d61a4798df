package wake

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fnwire/fnwire/internal/job"
)

// Limits of a file of hooks.
const (
	maxFile  = 1 << 20 // bytes
	maxHooks = 4096
	maxURL   = 2048 // bytes
	maxRate  = 10_000

	hookInFlight = 64 // attempts under way at a time for one hook, so that one that hangs does not hold up all
)

// MaxTimeout is the longest Timeout and Start of a hook.
const MaxTimeout = 15 * time.Minute

// Hook is where the names of a pattern are woken.
type Hook struct {
	job  *job.ID // nil: any
	name string  // pattern of path.Match; the syntax is checked
	url  string  // with {job} and {name}
	host string  // for the log

	secrets []Secret
	timeout time.Duration
	start   time.Duration
	rate    int // events a second, after ten times as many at once

	slots  gate // attempts under way
	places gate // events

	mu     sync.Mutex // guards bucket
	bucket bucket
}

func newHook(name, url string) *Hook {
	return &Hook{name: name, url: url, slots: make(gate, hookInFlight), places: make(gate, 16*hookInFlight)}
}

// Timeout is how long one attempt may take.
func (h *Hook) Timeout() time.Duration { return h.timeout }

// Start is how long a function that was started may take to join.
func (h *Hook) Start() time.Duration { return h.start }

// Host is the HOST:PORT that is called, for a log. The rest of the URL may be a secret.
func (h *Hook) Host() string { return h.host }

// target returns the URL to call. Job IDs and names need no escaping anywhere in a URL.
func (h *Hook) target(d *Data) string {
	return strings.NewReplacer("{job}", d.Job.String(), "{name}", d.Name).Replace(h.url)
}

// Hooks are the hooks of an operator, in the order of the file. The nil *Hooks has none.
type Hooks struct{ all []*Hook }

// Find returns the first hook for a name, or nil.
func (h *Hooks) Find(j job.ID, name string) *Hook {
	if h == nil {
		return nil
	}
	for _, one := range h.all {
		if one.job != nil && *one.job != j {
			continue
		}
		if ok, err := path.Match(one.name, name); ok && err == nil {
			return one
		}
	}
	return nil
}

// Len returns how many there are.
func (h *Hooks) Len() int {
	if h == nil {
		return 0
	}
	return len(h.all)
}

// file is the JSON of hooks.
type file struct {
	Hooks []struct {
		Job     string `json:"job"`     // job ID; empty or "*" is any
		Name    string `json:"name"`    // name, or pattern with * ? [a-z]
		URL     string `json:"url"`     // http or https; {job} and {name} stand in path and query
		Secret  string `json:"secret"`  // whsec_..., env:VARIABLE or file:PATH
		Rate    int    `json:"rate"`    // events a second for all names together; 0 is 100
		Timeout string `json:"timeout"` // of an attempt; empty is 15s
		Start   string `json:"start"`   // until a started function has joined; empty is 1m
	} `json:"hooks"`
}

// Load reads a file of hooks: {"hooks":[{"job":...,"name":...,"url":...,"secret":...}]}. Files that it names for secrets are looked
// for beside it.
func Load(name string) (*Hooks, error) {
	data, err := readFile(name)
	if err != nil {
		return nil, fmt.Errorf("wake: hooks: %w", err)
	}
	h, err := Parse(data, func(ref string) (string, error) { return resolve(ref, filepath.Dir(name)) })
	if err != nil {
		return nil, fmt.Errorf("%w (in %s)", err, name)
	}
	return h, nil
}

// resolve returns what env:VARIABLE or file:PATH, from dir on, refers to, and anything else as it is.
func resolve(ref, dir string) (string, error) {
	if variable, ok := strings.CutPrefix(ref, "env:"); ok {
		s := os.Getenv(variable)
		if strings.TrimSpace(s) == "" {
			return "", fmt.Errorf("secret: env:%s is not set, or empty", variable)
		}
		return s, nil
	}
	beside, ok := strings.CutPrefix(ref, "file:")
	if !ok {
		return ref, nil
	}
	if !filepath.IsAbs(beside) {
		beside = filepath.Join(dir, beside)
	}
	b, err := readFile(beside)
	if err == nil && len(bytes.TrimSpace(b)) == 0 {
		err = fmt.Errorf("secret: %s is empty", beside)
	}
	return string(b), err
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is longer than %d bytes", name, maxFile)
	}
	return b, err
}

// Parse reads hooks in JSON. secret turns what a hook says of its secret into one or more, separated by white space.
func Parse(data []byte, secret func(ref string) (string, error)) (*Hooks, error) {
	var f file
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if len(data) > maxFile {
		return nil, fmt.Errorf("wake: hooks: %d bytes, at most %d", len(data), maxFile)
	}
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("wake: hooks: %w", err)
	}
	if d.More() {
		return nil, errors.New("wake: hooks: something follows the JSON object")
	}
	if len(f.Hooks) > maxHooks {
		return nil, fmt.Errorf("wake: %d hooks, at most %d", len(f.Hooks), maxHooks)
	}
	h := &Hooks{}
	for i, in := range f.Hooks {
		one := newHook(in.Name, in.URL)
		err := one.checkPattern(in.Job)
		if err == nil {
			err = one.checkURL()
		}
		if err == nil {
			one.timeout, err = duration("timeout", in.Timeout, 15*time.Second, MaxTimeout)
		}
		if err == nil {
			one.start, err = duration("start", in.Start, time.Minute, MaxTimeout)
		}
		if one.rate = cmp.Or(in.Rate, 100); err == nil && (one.rate < 1 || one.rate > maxRate) {
			err = fmt.Errorf("rate %d: want 1 to %d a second", one.rate, maxRate)
		}
		var secrets string
		if err == nil {
			secrets, err = secret(in.Secret)
		}
		if err == nil {
			one.secrets, err = ParseSecrets(secrets)
		}
		if err != nil {
			return nil, fmt.Errorf("wake: hook %d: %w", i+1, err)
		}
		h.all = append(h.all, one)
	}
	return h, nil
}

func (h *Hook) checkPattern(jobID string) error {
	if jobID != "" && jobID != "*" {
		id, err := job.ParseID(jobID)
		if err != nil {
			return fmt.Errorf(`job: %w (or "*" for any)`, err)
		}
		h.job = &id
	}
	if _, err := path.Match(h.name, ""); err != nil || h.name == "" || len(h.name) > 256 {
		return fmt.Errorf(`name %.64q: want a name, or a pattern such as "reduce-*"`, h.name)
	}
	return nil
}

// checkURL refuses what would let the members of a job choose the host that is called, and what a log would show.
func (h *Hook) checkURL() error {
	u, err := url.Parse(strings.NewReplacer("{job}", "x", "{name}", "x").Replace(h.url))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || len(h.url) > maxURL {
		return errors.New("url: want http://... or https://..., with a host")
	}
	h.host = u.Host
	switch plain := strings.TrimPrefix(strings.TrimPrefix(h.url, "https://"), "http://"); {
	case u.User != nil:
		return errors.New("url: no user and password, please: the signature is what the receiver checks")
	case u.Fragment != "":
		return errors.New("url: a fragment is not sent")
	case !strings.HasPrefix(plain, u.Host):
		return errors.New("url: {job} and {name} may stand in path and query, not in scheme or host")
	case strings.ContainsAny(u.Path+u.RawQuery, "{}"):
		return errors.New("url: nothing but {job} and {name} may stand in braces")
	}
	return nil
}

func duration(what, s string, def, most time.Duration) (time.Duration, error) {
	if s == "" {
		return def, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > most {
		return 0, fmt.Errorf("%s %.32q: want a duration such as 15s, at most %v", what, s, most)
	}
	return d, nil
}
