// Package report turns the records of a directory into a page that needs nothing else, and the same in Markdown with its plots in files. It
// opens with the answer: how many times faster or slower, cheaper or dearer than by storage, with what is not certain about that. Then it shows, for each
// experiment, the network's calibration, plots, tables of medians with their spread, and all that is needed to repeat it. What is compared is in one
// table ([comparisons]). The same records give the same bytes. It writes README's block of results too, and tells whether that is still true.
package report

import (
	_ "embed" // the page
	"errors"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/fnwire/fnwire/experiments/results"
)

// What Make writes into an experiment's directory.
const (
	FileName     = "report.html"
	MarkdownName = "report.md"
	PlotsName    = "plots" // a directory
)

//go:embed report.html.tmpl
var page string

// Files are the paths of what Make has written.
type Files struct {
	Page     string `json:"report"`
	Markdown string `json:"markdown"`
	Plots    string `json:"plots"`
}

// plotName is how the plots are called: no other file in their directory is touched.
var plotName = regexp.MustCompile(`^[0-9]{2,}-[0-9]{2,}\.svg$`)

// Make reads the records in a directory and writes the page there, the same in Markdown, and its plots. What a report before left is replaced when all
// is written; if anything fails it stays.
func Make(dir string) (Files, error) {
	f := Files{filepath.Join(dir, FileName), filepath.Join(dir, MarkdownName), filepath.Join(dir, PlotsName)}
	records, err := results.Load(dir)
	if err != nil {
		return f, fmt.Errorf("report: %w", err)
	}
	if len(records) == 0 {
		return f, fmt.Errorf("report: no results in %s", dir)
	}
	if err := f.write(dir, newDocument(records)); err != nil {
		return f, fmt.Errorf("report: %w", err)
	}
	return f, nil
}

// write writes all files into a directory beside them, and then puts that directory's files where they belong.
func (f Files) write(dir string, d *document) (err error) {
	temp, err := os.MkdirTemp(dir, ".report-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	made := func(name string) string { return filepath.Join(temp, name) }
	if err := os.Mkdir(made(PlotsName), 0o755); err != nil {
		return err
	}
	for _, s := range d.Sections {
		for _, p := range s.Plots {
			if err := os.WriteFile(filepath.Join(made(PlotsName), p.File), []byte(p.SVG), 0o644); err != nil {
				return err
			}
		}
	}
	if err := os.WriteFile(made(MarkdownName), []byte(d.markdown()), 0o644); err != nil {
		return err
	}
	page, err := os.Create(made(FileName))
	if err != nil {
		return err
	}
	if err := errors.Join(d.html(page), page.Close()); err != nil {
		return err
	}
	return f.replace(temp)
}

// replace moves the files from temp to where they belong, and what was there into temp; all of it or nothing.
func (f Files) replace(temp string) (err error) {
	var m moves
	defer func() {
		if err != nil {
			err = errors.Join(err, m.back())
		}
	}()
	old := filepath.Join(temp, "old")
	if err := os.Mkdir(old, 0o755); err != nil {
		return err
	}
	if err := m.mkdir(f.Plots); err != nil {
		return err
	}
	before, err := os.ReadDir(f.Plots)
	if err != nil {
		return err
	}
	for _, e := range before {
		if plotName.MatchString(e.Name()) && !e.IsDir() {
			if err := m.move(filepath.Join(f.Plots, e.Name()), filepath.Join(old, e.Name())); err != nil {
				return err
			}
		}
	}
	plots, err := os.ReadDir(filepath.Join(temp, PlotsName))
	if err != nil {
		return err
	}
	for _, e := range plots {
		if err := m.move(filepath.Join(temp, PlotsName, e.Name()), filepath.Join(f.Plots, e.Name())); err != nil {
			return err
		}
	}
	if info, err := os.Lstat(f.Markdown); err == nil && !info.IsDir() {
		if err := m.move(f.Markdown, filepath.Join(old, MarkdownName)); err != nil {
			return err
		}
	}
	if err := m.move(filepath.Join(temp, MarkdownName), f.Markdown); err != nil {
		return err
	}
	return os.Rename(filepath.Join(temp, FileName), f.Page)
}

// moves are what has been done, each with how it is undone.
type moves []func() error

func (m *moves) move(from, to string) error {
	err := os.Rename(from, to)
	if err == nil {
		*m = append(*m, func() error { return os.Rename(to, from) })
	}
	return err
}

// mkdir makes a directory unless it is there.
func (m *moves) mkdir(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		*m = append(*m, func() error { return os.Remove(dir) })
		return nil
	}
	if info, serr := os.Stat(dir); serr == nil && info.IsDir() {
		return nil
	}
	return fmt.Errorf("the plots need a directory: %w", err)
}

// back undoes all, the last first.
func (m *moves) back() (err error) {
	for _, undo := range slices.Backward(*m) {
		err = errors.Join(err, undo())
	}
	return err
}

// Write writes the page for the records.
func Write(w io.Writer, records []results.Record) error { return newDocument(records).html(w) }

// document is the whole report.
type document struct {
	Claims   table     // what README tells
	Tally    string    // how often fnwire is faster and slower in all answers
	Answers  []*answer // of all sections, in the order of comparisons
	Sections []*section
	Warnings []string // of all sections
}

func newDocument(records []results.Record) *document {
	d := &document{Sections: sections(records)}
	d.Claims, _ = claims(d.Sections)
	d.Tally, _ = tally(d.Sections)
	for i, s := range d.Sections {
		if s.Matrix == nil { // whose maps tell more
			s.Plots, s.LeftOut = plots(s.records)
		}
		for j := range s.Plots {
			s.Plots[j].File = fmt.Sprintf("%02d-%02d.svg", i+1, j+1)
		}
		for _, w := range s.Warnings {
			d.Warnings = append(d.Warnings, s.Title+": "+w)
		}
	}
	told := make(map[string]string) // what is modelled, by the title of the first answer that says so
	for _, c := range comparisons() {
		for _, s := range d.Sections {
			for _, a := range slices.Concat(s.Answers, s.Causes) {
				if a.experiment != c.experiment || a.value != c.value {
					continue
				}
				d.Answers = append(d.Answers, a)
				if models := strings.Join(a.models, "\n"); models != "" && told[models] != "" {
					a.Notes = append([]string{fmt.Sprintf("Modelled, not measured: as for %q.", told[models])}, a.Notes...)
				} else {
					told[models] = a.Title()
					a.Notes = append(slices.Clone(a.models), a.Notes...)
				}
			}
		}
	}
	return d
}

func (d *document) html(w io.Writer) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"svg": func(p plot) template.HTML { return template.HTML(p.SVG) }, //nolint:gosec // package chart has escaped every text in it
	}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, d)
}

// Method says how to read the answers.
func (d *document) Method() string { return method }
