package report_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/experiments/report"
	"github.com/fnwire/fnwire/experiments/results"
)

const (
	readmeHead = "# A project\n\nIt is fast:\n\n"
	readmeTail = "\n\nAnd more.\n"
)

// readme writes a README with an empty block beside a directory of results.
func readme(t *testing.T, rs []results.Record) (path, dir string) {
	t.Helper()
	dir = save(t, rs)
	path = filepath.Join(filepath.Dir(dir), "README.md")
	if err := os.WriteFile(path, []byte(readmeHead+"<!-- results: begin nowhere -->\n<!-- results: end -->"+readmeTail), 0o640); err != nil {
		t.Fatal(err)
	}
	return path, dir
}

// updated is what a README is with the results of these measurements.
func updated(t *testing.T, rs []results.Record) string {
	t.Helper()
	path, dir := readme(t, rs)
	if err := report.UpdateReadme(path, dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// README tells of measurements with wukong3 beside them, though others are newer and of more works.
func TestReadmeTellsOfSlowWay(t *testing.T) {
	var rs []results.Record
	for _, functions := range []string{"16", "32"} {
		for _, r := range transfers(6) {
			if functions == "16" {
				if r.Work != "1 KiB" {
					continue
				}
				if r.Way == "relay" {
					r.Way = "wukong3"
				}
			}
			r.Experiment, r.Measured = "dag", map[string]float64{"done_ms": r.Measured["warm_ms"]}
			r.Settings = map[string]string{"profile": "aws-region", "functions": functions}
			rs = append(rs, r)
		}
	}
	if text := updated(t, rs); !strings.Contains(text, "beside wukong3") || strings.Contains(text, "2 MiB") {
		t.Errorf("%s", text)
	}
}

func TestReadme(t *testing.T) {
	rs := transfers(6)
	for _, r := range transfers(6) { // the same jobs as of another experiment, by a way that README tells of too
		r.Experiment, r.Measured = "dag", map[string]float64{"done_ms": r.Measured["warm_ms"]}
		if r.Way == "relay" {
			r.Way = "wukong3"
		}
		rs = append(rs, r)
	}
	path, dir := readme(t, rs)
	if err := report.CheckReadme(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the results are missing: %v", err)
	}
	if err := report.UpdateReadme(path, dir); err != nil {
		t.Fatal(err)
	}
	if err := report.CheckReadme(path); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	stat, err := os.Stat(path)
	if err != nil || stat.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", stat, err)
	}
	if !strings.HasPrefix(text, readmeHead+"<!-- results: begin "+filepath.Base(dir)+" -->\n") || !strings.HasSuffix(text, "<!-- results: end -->"+readmeTail) {
		t.Errorf("what is around the block has changed:\n%s", text)
	}
	for _, want := range []string{
		"| cost | beside wukong3 |", "| dag, aws-region: 1 KiB<br>until the whole job is done | 1.01 ms | redis | **2.0 × faster**<br>", " | **1.50 × faster**<br>1.4",
		"| dag, aws-region: 1 MiB<br>", "| transfer, aws-region: 2 MiB<br>a hand-over between two that are connected | 30.3 ms | redis | ≈ same<br>", "≈ same",
		"In all 6 comparisons of time with the best store, fnwire is faster in 2, slower in 2 and not told apart in 2. At worst:", "3.0 × slower than s3.",
		"6 of 120 measurements are marked", " something is modelled, such as what a store takes in a cloud.", "Commit `abc`", "/report.md).",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the block lacks %q", want)
		}
	}
	if n := strings.Count(text, "\n| "); n < 3+2 || n > 10+2 {
		t.Errorf("%d lines", n)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(text, "3.0 × slower", "3.0 × faster", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := report.CheckReadme(path); !errors.Is(err, report.ErrStale) {
		t.Errorf("a claim that is not true: %v", err)
	}
}

func TestReadmeFails(t *testing.T) {
	path, dir := readme(t, records()) // nothing is compared
	if err := report.UpdateReadme(path, dir); err == nil || !strings.Contains(err.Error(), "fnwire") {
		t.Errorf("nothing to compare: %v", err)
	}
	for _, text := range []string{"no marks", "<!-- results: end -->\n<!-- results: begin x -->\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{report.UpdateReadme(path, dir), report.CheckReadme(path)} {
			if err == nil || !strings.Contains(err.Error(), "there is no line") {
				t.Errorf("%q: %v", text, err)
			}
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("the file has changed: %q, %v", b, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".report-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestProject: what the project's README claims is what its committed results give, and these are there.
func TestProject(t *testing.T) {
	if err := report.CheckReadme("../../README.md"); err != nil {
		t.Error(err)
	}
}

// Where fnwire fails each time and a store does not, that is told.
func TestReadmeTellsOfFailures(t *testing.T) {
	rs := transfers(6)
	for i := range rs {
		if rs[i].Way == "fnwire" && rs[i].Work == "1 KiB" {
			rs[i].OK, rs[i].Error = false, "broken"
		}
	}
	if want, text := "; in 1 it has failed each time, where a store has not.", updated(t, rs); !strings.Contains(text, want) {
		t.Errorf("it lacks %q:\n%s", want, text)
	}
}
