package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/wan"
)

// section is the runs of one experiment with the same settings on the same machine with the same program.
type section struct {
	ID         string // in the page
	Title      string
	name       string // the title without its number
	Experiment string
	Settings   string
	Seeds      string
	Machine    string
	Commit     string
	Program    string // its digest
	From, To   string
	Commands   []string // that repeat it, one a seed
	Matrix     *matrix  // of nat-matrix
	Answers    []*answer
	Causes     []*answer // of what others are slow
	Plots      []plot
	LeftOut    []string // of the plots
	Tables     []table
	Failures   []string
	Skipped    []string
	Configs    []string // of peers
	Modelled   []string
	Warnings   []string // why not to trust it

	Calibration *table   // of the network; nil if that is not emulated
	Network     []string // what it is, and where its figures are from

	records []results.Record
}

// sections groups records, in the order in which they were made.
func sections(records []results.Record) []*section {
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
	out := make([]*section, 0, len(order))
	for i, k := range order {
		s := newSection(groups[k])
		s.ID = fmt.Sprintf("s%d", i+1)
		s.Title = fmt.Sprintf("%d. %s", i+1, s.name)
		for _, c := range comparisons() {
			if a := newAnswer(s, c, groups[k]); a != nil {
				s.Answers = append(s.Answers, a)
			}
			if a := newCauses(s, c, groups[k]); a != nil {
				s.Causes = append(s.Causes, a)
			}
		}
		out = append(out, s)
	}
	return out
}

// modelledService is the value of the setting "service" with which stores are slowed down.
const modelledService = "modelled"

const mostFailures = 50 // that are listed

func newSection(rs []results.Record) *section {
	first, last := rs[0], rs[len(rs)-1]
	m := first.Machine
	s := &section{
		Experiment: first.Experiment, name: first.Experiment, Commit: cmp.Or(first.Commit, "unknown"), Program: cmp.Or(first.Program, "unknown"), records: rs,
		Machine: fmt.Sprintf("%s, %d cores, %.1f GB, kernel %s, %s, %s", cmp.Or(m.CPU, "unknown CPU"), m.Cores,
			float64(m.MemoryBytes)/1e9, cmp.Or(m.Kernel, "unknown"), m.System, m.Go),
		From: first.Time.Format("2006-01-02 15:04:05"), To: last.Time.Format("2006-01-02 15:04:05 MST"),
	}
	if p := first.Settings["profile"]; p != "" {
		s.name += ", " + profileName(p)
	}
	if first.Settings["service"] == modelledService {
		s.name += ", stores as in a cloud (modelled)"
	}
	var settings, seeds []string
	for _, name := range slices.Sorted(maps.Keys(first.Settings)) {
		settings = append(settings, name+"="+first.Settings[name])
	}
	for _, r := range rs {
		if seed := fmt.Sprint(r.Seed); !slices.Contains(seeds, seed) {
			seeds = append(seeds, seed)
			s.Commands = append(s.Commands, command(r))
		}
		add := func(to *[]string, text string) {
			if line := cmp.Or(r.Way, r.Case) + ": " + text; text != "" && !slices.Contains(*to, line) {
				*to = append(*to, line)
			}
		}
		add(&s.Configs, r.Config)
		for _, m := range r.Modelled {
			add(&s.Modelled, m)
		}
		switch {
		case r.Skipped:
			add(&s.Skipped, r.Error)
		case !r.OK:
			s.Failures = append(s.Failures, fmt.Sprintf("%s, repetition %d: %s", r.Case, r.Rep+1, r.Error))
		}
	}
	if more := len(s.Failures) - mostFailures; more > 0 {
		s.Failures = append(s.Failures[:mostFailures], fmt.Sprintf("%d more", more))
	}
	s.Matrix = newMatrix(rs)
	s.Settings, s.Seeds = strings.Join(settings, "  "), strings.Join(seeds, ", ")
	s.Tables = []table{newTable("Outcome", rs, func(r results.Record) map[string]float64 {
		all := maps.Clone(r.Measured)
		if all == nil {
			all = make(map[string]float64)
		}
		all["seconds"] = r.Seconds
		return all
	})}
	if phases := newTable("Set-up, ms", rs, func(r results.Record) map[string]float64 { return r.Phases }); len(phases.Head) > fixedColumns {
		s.Tables = append(s.Tables, phases)
	}
	s.calibrate(rs)
	return s
}

// profileName is what the network is called in titles.
func profileName(p string) string {
	if p == wan.None {
		return "no emulated network"
	}
	return p
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// command is what repeats the measurement, and all others with the same settings and seed.
func command(r results.Record) string {
	words := []string{"bin/experiments", "run", r.Experiment, "--out", "DIR", "--seed", fmt.Sprint(r.Seed)}
	if r.Quick {
		words = append(words, "--quick")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Settings)) {
		words = append(words, "--set", name+"="+r.Settings[name])
	}
	for i, w := range words {
		if !plainWord.MatchString(w) {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
