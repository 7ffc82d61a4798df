// Package results is what experiments leave: one measurement a line, as JSON, in a file that is only ever appended to. A
// measurement says all that is needed to repeat it. The package does not know what was measured.
package results

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"
)

// FileName is the file in an experiment's directory.
const FileName = "results.jsonl"

// Record is one measurement.
type Record struct {
	Experiment string  `json:"experiment"`
	Case       string  `json:"case"`
	Path       string  `json:"path"`           // direct, relay, or a store's or peer's name
	Work       string  `json:"work,omitempty"` // what is done, whatever the way: measurements of one Work are compared with one another
	Way        string  `json:"way,omitempty"`  // by which it is done: "fnwire", "relay", a store's or a peer's name
	Bytes      int64   `json:"bytes"`
	Seconds    float64 `json:"seconds"`
	OK         bool    `json:"ok"` // delivered with the right digest, and whatever else the experiment demands
	Error      string  `json:"error,omitempty"`
	Skipped    bool    `json:"skipped,omitempty"` // not made, because something must be installed first: Error tells what
	Config     string  `json:"config,omitempty"`  // of a peer, in words

	Rep      int                `json:"rep"` // from 0
	Measured map[string]float64 `json:"measured,omitempty"`
	Phases   map[string]float64 `json:"phases_ms,omitempty"` // of the set-up
	Reason   string             `json:"reason,omitempty"`    // why the path is what it is
	Expected string             `json:"expected,omitempty"`  // what was expected of the path
	Via      string             `json:"via,omitempty"`       // how sender and receiver reach their relays: "udp/wss"

	// Samples are single values behind those of Measured, in the order in which they were taken, by the name of a unit and value, as "first_byte_ms".
	Samples map[string][]float64 `json:"samples,omitempty"`
	Spans   []Span               `json:"spans,omitempty"` // what functions did when
	Bill    []Charge             `json:"bill,omitempty"`  // what it would have cost
	// Modelled says what of the measurement is added by a model and not measured, with its source.
	Modelled []string `json:"modelled,omitempty"`

	// Calibration is what the emulated network was set to and what it did before the measurement; none if there is no such network.
	Calibration []Check  `json:"calibration,omitempty"`
	Marks       []string `json:"marks,omitempty"` // why not to trust what was measured

	Seed     uint64            `json:"seed"`
	Quick    bool              `json:"quick"`
	Settings map[string]string `json:"settings"`
	Time     time.Time         `json:"time"`
	Commit   string            `json:"commit"`  // "unknown" if the program was built without
	Program  string            `json:"program"` // digest of its file: equal for the same program only
	Machine  Machine           `json:"machine"`
}

// Span is what one function did for some time.
type Span struct {
	Row  string  `json:"row"`  // the function's
	Kind string  `json:"kind"` // "start", "run", "send", "receive" or "wait"
	Name string  `json:"name"` // of the task or state
	From float64 `json:"from"` // in milliseconds since the measurement began
	To   float64 `json:"to"`
}

// Charge is one item of a bill.
type Charge struct {
	Item     string  `json:"item"` // "function time", "S3 PUT"
	For      string  `json:"for"`  // the path, store or work that caused it
	Quantity float64 `json:"quantity"`
	Unit     string  `json:"unit"`
	Dollars  float64 `json:"dollars"`
}

// Check is one figure of a calibration.
type Check struct {
	What     string  `json:"what"`
	Unit     string  `json:"unit"`
	Set      float64 `json:"set"`
	Measured float64 `json:"measured"`
	Chance   float64 `json:"chance,omitempty"` // the share of Set by which chance alone moves it, at three standard deviations
}

// Tolerance is the share by which a figure may be off what was set.
const Tolerance = 0.1

// Off is the share by which the measured figure is above what was set, or below it if negative.
func (c Check) Off() float64 { return c.Measured/c.Set - 1 }

// Bad tells whether it is off by more than Tolerance and chance.
func (c Check) Bad() bool { return !(math.Abs(c.Off()) <= Tolerance+c.Chance) }

// Key is equal for two records that measure the same thing under the same settings of the same program.
func (r Record) Key() string {
	b, err := json.Marshal([]any{r.Experiment, r.Case, r.Rep, r.Seed, r.Settings, r.Program}) // maps are sorted
	if err != nil {
		panic("results: key: " + err.Error()) // strings and numbers always can be encoded
	}
	return string(b)
}

// Writer appends records to a file. It is for one goroutine.
type Writer struct {
	file   *os.File
	whole  int64 // bytes of whole lines
	before []Record
	done   map[string]Record // those that are OK, by their keys
}

var errBusy = errors.New("another run writes to it: wait for its end, or give another directory")

// Open makes the directory if need be and reads what is there. The last line may have been cut off by a crash; it is dropped. There is one
// Writer at a time of a directory, where the system has locks.
func Open(dir string) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, FileName), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	w := &Writer{file: f, done: make(map[string]Record)}
	if err := lock(f); err != nil {
		return nil, errors.Join(fmt.Errorf("results: %s: %w", f.Name(), err), f.Close())
	}
	records, whole, err := read(f)
	if w.whole = whole; err == nil {
		err = f.Truncate(whole)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("results: %w", err), f.Close())
	}
	w.before = records
	for _, r := range records {
		w.note(r)
	}
	return w, nil
}

func (w *Writer) note(r Record) {
	if r.OK {
		w.done[r.Key()] = r
	}
}

// Has tells whether there is a record with the key of r that is OK.
func (w *Writer) Has(r Record) bool {
	_, ok := w.Find(r)
	return ok
}

// Find returns the last record with the key of r that is OK.
func (w *Writer) Find(r Record) (Record, bool) {
	found, ok := w.done[r.Key()]
	return found, ok
}

// Before returns the records that were there when the file was opened.
func (w *Writer) Before() []Record { return w.before }

// Write appends a record, all of it or nothing: what is left of one that could not be written is cut off, or written over by the next.
func (w *Writer) Write(r Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	n, err := w.file.WriteAt(append(b, '\n'), w.whole)
	if err != nil {
		return fmt.Errorf("results: %w", errors.Join(err, w.file.Truncate(w.whole)))
	}
	w.whole += int64(n)
	w.note(r)
	return nil
}

// Close closes the file.
func (w *Writer) Close() error { return w.file.Close() }

// Load reads the records in a directory.
func Load(dir string) ([]Record, error) {
	f, err := os.Open(filepath.Join(dir, FileName))
	if err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	defer f.Close()
	records, _, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	return records, nil
}

// read returns the records and how many bytes of whole lines there are.
func read(f *os.File) (records []Record, whole int64, err error) {
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, 0, err
	}
	for n := 1; ; n++ {
		line, rest, found := bytes.Cut(b, []byte{'\n'})
		if !found {
			return records, whole, nil
		}
		var r Record
		err := json.Unmarshal(line, &r)
		if err == nil && (r.Experiment == "" || r.Time.IsZero()) {
			err = errors.New("it has no experiment or no time")
		}
		if err != nil {
			return nil, 0, fmt.Errorf("%s: line %d is no measurement: %w: take that line out of the file, or use another directory", f.Name(), n, err)
		}
		records, b, whole = append(records, r), rest, whole+int64(len(line))+1
	}
}
