// Package report turns the records of a directory into one HTML page that needs nothing else: for each experiment the
// settings and machines of its runs, and tables of medians with their spread. It draws no conclusions.
package report

import (
	"cmp"
	_ "embed" // the page
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/workload"
)

// FileName is the page in an experiment's directory.
const FileName = "report.html"

//go:embed report.html.tmpl
var page string

// Make reads the records in a directory and writes the page there. It returns the page's path.
func Make(dir string) (string, error) {
	records, err := results.Load(dir)
	if err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	if len(records) == 0 {
		return "", fmt.Errorf("report: no results in %s", dir)
	}
	path := filepath.Join(dir, FileName)
	f, err := os.Create(path)
	if err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	if err := errors.Join(Write(f, records), f.Close()); err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	return path, nil
}

// Write writes the page for the records.
func Write(w io.Writer, records []results.Record) error {
	t, err := template.New("report").Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, document(sections(records)))
}

// document is the whole page.
type document []section

// Warnings are those of all sections, for its top.
func (d document) Warnings() (all []string) {
	for _, s := range d {
		for _, w := range s.Warnings {
			all = append(all, s.Experiment+": "+w)
		}
	}
	return all
}

// section is the runs of one experiment with the same settings on the same machine with the same program.
type section struct {
	Experiment string
	Settings   string
	Seeds      string
	Machine    string
	Commit     string
	From, To   string
	Matrix     *matrix // of nat-matrix
	Tables     []table
	Failures   []string
	Skipped    []string
	Configs    []string // of peers
	Ratios     []string
	Warnings   []string // why not to trust it

	Calibration *table   // of the network; nil if that is not emulated
	Network     []string // what it is, and where its figures are from
}

type table struct {
	Title string
	Head  []string
	Rows  [][]cell
}

type cell struct {
	Text   string
	Spread string // from the least to the most, if there are several
	Number bool
	Wrap   bool // a text that may be long
}

// sections groups records, in the order in which they were made.
func sections(records []results.Record) []section {
	groups := make(map[string][]results.Record)
	var order []string
	for _, r := range records {
		b, _ := json.Marshal([]any{r.Experiment, r.Settings, r.Commit, r.Program, r.Machine}) // never fails for these types
		k := string(b)
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], r)
	}
	out := make([]section, 0, len(order))
	for _, k := range order {
		out = append(out, newSection(groups[k]))
	}
	return out
}

func newSection(rs []results.Record) section {
	first, last := rs[0], rs[len(rs)-1]
	m := first.Machine
	s := section{
		Experiment: first.Experiment, Commit: cmp.Or(first.Commit, "unknown"),
		Machine: fmt.Sprintf("%s, %d cores, %.1f GB, kernel %s, %s, %s", cmp.Or(m.CPU, "unknown CPU"), m.Cores,
			float64(m.MemoryBytes)/1e9, cmp.Or(m.Kernel, "unknown"), m.System, m.Go),
		From: first.Time.Format("2006-01-02 15:04:05"), To: last.Time.Format("2006-01-02 15:04:05 MST"),
	}
	var settings, seeds []string
	for _, name := range slices.Sorted(maps.Keys(first.Settings)) {
		settings = append(settings, name+"="+first.Settings[name])
	}
	for _, r := range rs {
		if seed := fmt.Sprint(r.Seed); !slices.Contains(seeds, seed) {
			seeds = append(seeds, seed)
		}
		add := func(to *[]string, text string) {
			if line := r.Case + ": " + text; text != "" && !slices.Contains(*to, line) {
				*to = append(*to, line)
			}
		}
		add(&s.Configs, r.Config)
		switch {
		case r.Skipped:
			add(&s.Skipped, r.Error)
		case !r.OK:
			s.Failures = append(s.Failures, fmt.Sprintf("%s, repetition %d: %s", r.Case, r.Rep+1, r.Error))
		}
	}
	s.Ratios, s.Matrix = ratioLines(rs), newMatrix(rs)
	s.Settings, s.Seeds = strings.Join(settings, "  "), strings.Join(seeds, ", ")
	s.Tables = []table{
		newTable("Outcome", rs, func(r results.Record) map[string]float64 {
			all := maps.Clone(r.Measured)
			if all == nil {
				all = make(map[string]float64)
			}
			all["seconds"] = r.Seconds
			return all
		}),
	}
	if phases := newTable("Set-up, ms", rs, func(r results.Record) map[string]float64 { return r.Phases }); len(phases.Head) > fixedColumns {
		s.Tables = append(s.Tables, phases)
	}
	s.calibrate(rs)
	return s
}

const fixedColumns = 4

// newTable has a row for each case and path, and a column for each value that any record has.
func newTable(title string, rs []results.Record, values func(results.Record) map[string]float64) table {
	t := table{Title: title, Head: []string{"case", "path", "ok", "bytes"}}
	type row struct {
		rs []results.Record
		ok int
	}
	rows := make(map[[2]string]*row)
	var order [][2]string
	columns := make(map[string]bool)
	for _, r := range rs {
		if r.Skipped {
			continue
		}
		k := [2]string{r.Case, r.Path}
		if rows[k] == nil {
			rows[k] = &row{}
			order = append(order, k)
		}
		rows[k].rs = append(rows[k].rs, r)
		if r.OK {
			rows[k].ok++
		}
		for name := range values(r) {
			columns[name] = true
		}
	}
	slices.SortStableFunc(order, func(a, b [2]string) int { return cmp.Compare(a[0], b[0]) })
	names := slices.Sorted(maps.Keys(columns))
	t.Head = append(t.Head, names...)
	for _, k := range order {
		r := rows[k]
		cells := []cell{
			{Text: k[0]}, {Text: cmp.Or(k[1], "none")}, {Text: fmt.Sprintf("%d of %d", r.ok, len(r.rs)), Number: true},
			{Text: workload.FormatBytes(r.rs[0].Bytes), Number: true},
		}
		for _, name := range names {
			var v []float64
			for _, rec := range r.rs {
				if x, there := values(rec)[name]; there && rec.OK {
					v = append(v, x)
				}
			}
			cells = append(cells, summary(v))
		}
		t.Rows = append(t.Rows, cells)
	}
	return t
}

func summary(v []float64) cell {
	if len(v) == 0 {
		return cell{Text: "", Number: true}
	}
	c := cell{Text: FormatNumber(results.Median(v)), Number: true}
	if len(v) > 1 {
		c.Spread = FormatNumber(slices.Min(v)) + " to " + FormatNumber(slices.Max(v))
	}
	return c
}

// FormatNumber writes v with three digits or more.
func FormatNumber(v float64) string {
	a := math.Abs(v)
	switch {
	case a == 0 || a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
