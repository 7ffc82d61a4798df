package report

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/wan"
)

// The lines between which README has its results. The first one names their directory, from that of README.
const (
	beginMark = "<!-- results: begin "
	markEnd   = " -->"
	endMark   = "<!-- results: end -->"
)

// ErrStale is what the error of [CheckReadme] wraps if README does not say what the results do.
var ErrStale = errors.New("the block of results is not what the results give")

// UpdateReadme has the block of results in a Markdown file say what the results in dir do. The file is replaced as a whole, or not at all.
func UpdateReadme(path, dir string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	before, _, _, after, err := cutBlock(text)
	if err != nil {
		return fmt.Errorf("report: %s: %w", path, err)
	}
	rel, err := relative(path, dir)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	block, err := readmeBlock(dir, rel)
	if err != nil {
		return err
	}
	return replaceFile(path, slices.Concat(before, []byte(block), after))
}

// CheckReadme returns an error if the block of results in a Markdown file is not what the results give whose directory it names, which
// wraps [ErrStale], or if those are missing.
func CheckReadme(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	_, block, rel, _, err := cutBlock(text)
	if err != nil {
		return fmt.Errorf("report: %s: %w", path, err)
	}
	want, err := readmeBlock(filepath.Join(filepath.Dir(path), filepath.FromSlash(rel)), rel)
	if err != nil {
		return err
	}
	if !bytes.Equal(block, []byte(want)) {
		return fmt.Errorf("report: %s: %w: run experiments report --readme %s %s; it should be:\n%s", path, ErrStale, filepath.Base(path), rel, want)
	}
	return nil
}

// relative is the path of dir from the directory of a file.
func relative(file, dir string) (string, error) {
	from, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return "", err
	}
	to, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(from, to)
	return filepath.ToSlash(rel), err
}

// cutBlock finds the block with its marks, and the directory that it names.
func cutBlock(text []byte) (before, block []byte, dir string, after []byte, err error) {
	from := bytes.Index(text, []byte(beginMark))
	if from < 0 {
		return nil, nil, "", nil, fmt.Errorf("there is no line %q", beginMark+"DIR"+markEnd)
	}
	n := bytes.Index(text[from:], []byte(endMark))
	if n < 0 {
		return nil, nil, "", nil, fmt.Errorf("there is no line %q after %q", endMark, beginMark)
	}
	to := from + n + len(endMark)
	first, _, _ := strings.Cut(string(text[from:to]), "\n")
	dir = strings.TrimSuffix(strings.TrimPrefix(first, beginMark), markEnd)
	return text[:from], text[from:to], dir, text[to:], nil
}

const mostClaims = 10 // lines of the block's table

// readmeBlock is the block for the results in dir, which README calls rel.
func readmeBlock(dir, rel string) (string, error) {
	records, err := results.Load(dir)
	if err != nil {
		return "", fmt.Errorf("report: the results of README: %w", err)
	}
	ss := sections(records)
	t, used := claims(ss)
	if len(t.Rows) == 0 {
		return "", fmt.Errorf("report: the results of README: nothing in %s can be compared with %s", dir, reference)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s%s\n\n", beginMark, rel, markEnd)
	t.markdown(&b)
	said, counted := tally(ss)
	if said != "" {
		fmt.Fprintf(&b, "%s\n\n", md(said))
	}
	fmt.Fprintf(&b, "%s\n\n", strings.Join(origin(union(ss, used, counted), rel), " "))
	b.WriteString(endMark)
	return b.String(), nil
}

// claims are README's table, and the sections that it is from: of each experiment that README tells of the smallest work, the largest, and some
// between, beside the rival and, if that was measured, slowWay.
func claims(ss []*section) (t table, used []*section) {
	t.Head = []string{"what", reference, "beside", "time or rate", "cost"}
	slow := false
	for _, c := range comparisons() {
		a := claimed(ss, c)
		if a == nil {
			continue
		}
		for i, row := range a.rows {
			if row.rival == nil || !evenly(i, len(a.rows), c.claims) || len(t.Rows) == mostClaims {
				continue
			}
			used = append(used, a.Section)
			line := a.claim(row, *row.rival)
			for _, r := range row.ratios {
				if r.to.way == slowWay && r.ratio > 0 {
					slow = true
					line[len(line)-1] = unmarked(a, r)
				}
			}
			t.Rows = append(t.Rows, line)
		}
	}
	if slow {
		t.Head = append(t.Head, "beside "+slowWay)
	} else {
		for i, row := range t.Rows {
			t.Rows[i] = row[:len(t.Head)]
		}
	}
	return t, used
}

// evenly tells whether the i-th of n is among so many that are chosen evenly, with both ends.
func evenly(i, n, chosen int) bool {
	if n <= chosen {
		return true
	}
	for k := range chosen {
		if i == k*(n-1)/max(chosen-1, 1) {
			return true
		}
	}
	return false
}

// claimed is the answer that README tells of a comparison, or nil: of those that rank alike that about most works, and of those the newest.
func claimed(ss []*section, c comparison) (best *answer) {
	for _, s := range ss {
		for _, a := range s.Answers {
			if c.claims > 0 && a.experiment == c.experiment && a.value == c.value &&
				(best == nil || cmp.Or(s.claimRank()-best.Section.claimRank(), len(a.rows)-len(best.rows)) >= 0) {
				best = a
			}
		}
	}
	return best
}

// claimRank is the higher, the rather README tells of a section: of functions in one region, with slowWay beside them, and then with stores as fast as
// their servers are here, which is the hardest for fnwire.
func (s *section) claimRank() (rank int) {
	settings := s.records[0].Settings
	if place, _, _ := strings.Cut(settings["profile"], "/"); place == "aws-region" {
		rank += 2
	}
	if settings["service"] != modelledService {
		rank++
	}
	if slices.ContainsFunc(s.records, func(r results.Record) bool { return r.Way == slowWay }) {
		rank += 2
	}
	return rank
}

// claim is one line, with a place for slowWay at its end.
func (a *answer) claim(row answerRow, r ratio) []cell {
	cost := cell{}
	for _, other := range a.Section.Answers {
		if other.value != costValue {
			continue
		}
		for _, costRow := range other.rows {
			for _, q := range costRow.ratios {
				if costRow.work == row.work && q.to.way == r.to.way && q.ratio > 0 {
					cost = unmarked(other, q)
				}
			}
		}
	}
	beside := cell{Text: r.to.way}
	if r.to.modelled {
		beside.Spread = "modelled"
	}
	return []cell{{Text: a.Section.name + ": " + row.work, Spread: a.what}, {Text: a.format(r.of.median())}, beside, unmarked(a, r), cost, {}}
}

// unmarked shows a ratio without how many measurements are marked, which is told below the table.
func unmarked(a *answer, r ratio) cell {
	r.of.marked, r.to.marked = 0, 0
	return a.cell(r)
}

// tally says how fnwire did beside its rivals in all of the results, and where it did worst, so that the table cannot flatter; and what it counted.
func tally(ss []*section) (said string, counted []*section) {
	count := make(map[verdict]int)
	all, failed := 0, 0
	var worst *ratio
	var where string
	for _, s := range ss {
		for _, a := range s.Answers {
			if a.value == costValue || a.better != "faster" {
				continue
			}
			for _, row := range a.rows {
				store := row.rival
				switch {
				case row.missed():
					failed++
				case store == nil || !isStore(store.to.way):
					continue
				case worst == nil || store.ratio < worst.ratio:
					worst, where = store, fmt.Sprintf("%s, %s, %s: %s than %s", a.Section.name, a.what, row.work, a.words(store.ratio), store.to.way)
					fallthrough
				default:
					count[store.verdict()]++
				}
				all++
				counted = append(counted, s)
			}
		}
	}
	if all == 0 {
		return "", nil
	}
	said = fmt.Sprintf("In all %d comparisons of time with the best store, fnwire is faster in %d, slower in %d and not told apart in %d", all, count[faster], count[slower], count[even])
	if count[unknown] > 0 {
		said += fmt.Sprintf("; %d have too few repetitions to tell", count[unknown])
	}
	if failed > 0 {
		said += fmt.Sprintf("; in %d it has failed each time, where a store has not", failed)
	}
	if worst != nil {
		said += ". At worst: " + where
	}
	return said + ".", counted
}

// missed tells whether fnwire has failed each time, where a store has not.
func (r answerRow) missed() bool {
	return r.fnwire.tried > 0 && len(r.fnwire.values) == 0 && slices.ContainsFunc(r.ratios, func(r ratio) bool { return isStore(r.to.way) && len(r.to.values) > 0 })
}

// union are those sections that are in either list, in their order.
func union(ss, a, b []*section) (out []*section) {
	for _, s := range ss {
		if slices.Contains(a, s) || slices.Contains(b, s) {
			out = append(out, s)
		}
	}
	return out
}

// origin says where the numbers are from and how to read them.
func origin(used []*section, rel string) []string {
	var commits, machines []string
	add := func(to *[]string, s string) {
		if !slices.Contains(*to, s) {
			*to = append(*to, s)
		}
	}
	marked, emulated, modelled, all := 0, 0, 0, 0
	for _, s := range used {
		commit, modified, _ := strings.Cut(s.Commit, " ")
		add(&commits, strings.TrimSuffix("`"+md(commit[:min(len(commit), 12)])+"` "+md(modified), " "))
		add(&machines, md(s.Machine))
		for _, r := range s.records {
			all++
			if len(r.Marks) > 0 {
				marked++
			}
			if len(r.Modelled) > 0 {
				modelled++
			}
			if p := r.Settings["profile"]; p != "" && p != wan.None {
				emulated++
			}
		}
	}
	out := []string{"Ratios of medians; below them 95 % bootstrap confidence intervals and n, the repetitions (†: too few for 95 %)."}
	if emulated > 0 {
		out = append(out, fmt.Sprintf("The network of %d of the %d measurements is emulated.", emulated, all))
	}
	if modelled > 0 {
		out = append(out, fmt.Sprintf("In %d something is modelled, such as what a store takes in a cloud.", modelled))
	}
	if marked > 0 {
		out = append(out, fmt.Sprintf("%d of %d measurements are marked, because the machine or the emulator may have bound them.", marked, all))
	}
	return append(out, fmt.Sprintf("Commit %s; %s. How, and all else: [%s](%s/%s).", strings.Join(commits, ", "), strings.Join(machines, "; "), MarkdownName, rel, MarkdownName))
}

// replaceFile replaces a file as a whole.
func replaceFile(path string, text []byte) (err error) {
	stat, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".report-*")
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	_, werr := f.Write(text)
	if err := errors.Join(werr, f.Chmod(stat.Mode().Perm()), f.Close()); err != nil {
		return fmt.Errorf("report: %w", errors.Join(err, os.Remove(f.Name())))
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("report: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
