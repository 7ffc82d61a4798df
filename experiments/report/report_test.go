package report_test

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/report"
	"github.com/fnwire/fnwire/experiments/results"
)

func records() []results.Record {
	var rs []results.Record
	for rep, goodput := range []float64{100, 300, 200} {
		rs = append(rs, results.Record{
			Experiment: "transfer", Case: "fnwire-direct", Path: "direct", Bytes: 1 << 20, Seconds: 0.5, OK: true, Rep: rep,
			Measured: map[string]float64{"goodput_mbps": goodput}, Phases: map[string]float64{"join": 2},
			Settings: map[string]string{"bytes": "1MiB"}, Time: time.Unix(0, 0).UTC(), Commit: "abc",
		})
	}
	failed := rs[0]
	failed.Case, failed.Path, failed.OK, failed.Error = "plain-quic", "", false, "cannot <do> that"
	failed.Measured, failed.Phases = nil, nil
	return append(rs, failed)
}

func Example() {
	if err := report.WriteText(os.Stdout, records()[:3]); err != nil {
		panic(err)
	}
	// Output:
	// transfer   bytes=1MiB
	//
	// Outcome (median, least to most)
	//   case          fnwire-direct
	//   path          direct
	//   ok            3 of 3
	//   bytes         1 MiB
	//   goodput_mbps  200 (100 to 300)
	//   seconds       0.5 (0.5 to 0.5)
	//
	// Set-up, ms (median, least to most)
	//   case   fnwire-direct
	//   path   direct
	//   ok     3 of 3
	//   bytes  1 MiB
	//   join   2.00 (2.00 to 2.00)
}

// save writes records to a new directory, with what each must have.
func save(t *testing.T, rs []results.Record) string {
	t.Helper()
	dir := t.TempDir()
	w, err := results.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		r.Experiment = cmp.Or(r.Experiment, "odd")
		r.Time = cmp.Or(r.Time, time.Unix(0, 0).UTC())
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// files are the contents of a directory and those below it.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, path))
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestMake(t *testing.T) {
	dir := save(t, append(records(), transfers(6)...))
	made, err := report.Make(dir)
	if want := (report.Files{Page: filepath.Join(dir, "report.html"), Markdown: filepath.Join(dir, "report.md"), Plots: filepath.Join(dir, "plots")}); err != nil || made != want {
		t.Fatalf("Make: %+v, %v", made, err)
	}
	first := files(t, dir)
	html, markdown := first["report.html"], first["report.md"]
	for _, want := range []string{"fnwire-direct", "3 of 3", "0 of 1", "200<small>100 to 300</small>", "bytes=1MiB", "cannot &lt;do&gt; that", "abc"} {
		if !strings.Contains(html, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, want := range []string{"fnwire-direct", "200<br>100 to 300", "bytes=1MiB", "cannot &lt;do&gt; that", "1 KiB: 2.0 × faster than redis", "    bin/experiments run transfer"} {
		if !strings.Contains(markdown, want) {
			t.Errorf("the Markdown lacks %q", want)
		}
	}
	for _, not := range []string{"src=", `href="http`, "href=\"/", "NaN", "<do>", "<script", "@import", "url("} {
		if strings.Contains(html, not) {
			t.Errorf("the page has %q", not)
		}
	}
	shown := regexp.MustCompile(`\]\((plots/[^)]+)\)`).FindAllStringSubmatch(markdown, -1)
	if len(shown) < 10 || len(first) != len(shown)+3 {
		t.Errorf("%d plots are shown, of %d files in all", len(shown), len(first))
	}
	for _, m := range shown {
		if !strings.HasPrefix(first[m[1]], "<svg") || !strings.Contains(html, first[m[1]]) {
			t.Errorf("%s is no plot, or not that of the page", m[1])
		}
	}
	// What a run before left is replaced as a whole, and the same records give the same bytes.
	if err := os.WriteFile(filepath.Join(dir, "plots", "99-99.svg"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := report.Make(dir); err != nil {
		t.Fatal(err)
	}
	if again := files(t, dir); !maps.Equal(again, first) {
		t.Error("made again, it differs")
	}
}

// Nothing is left half-written, whatever fails.
func TestMakeFails(t *testing.T) {
	if _, err := report.Make(t.TempDir()); err == nil {
		t.Error("a report of a directory without results")
	}
	if _, err := report.Make(save(t, nil)); err == nil {
		t.Error("a report of nothing")
	}
	dir := save(t, records())
	if _, err := report.Make(dir); err != nil {
		t.Fatal(err)
	}
	before := files(t, dir)
	f, err := os.OpenFile(filepath.Join(dir, results.FileName), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("{\"seconds\": NaN}\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := report.Make(dir); err == nil || !strings.Contains(err.Error(), "line 5") {
		t.Errorf("a broken line: %v", err)
	}
	after := files(t, dir)
	delete(before, results.FileName)
	delete(after, results.FileName)
	if !maps.Equal(before, after) {
		t.Error("what was there has changed, or something is left")
	}
	// Neither the page nor its Markdown can be put where a directory is, nor plots into a file; all else stays as it was.
	for _, name := range []string{report.FileName, report.MarkdownName, report.PlotsName} {
		dir := save(t, append(records(), transfers(6)...))
		if _, err := report.Make(dir); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		var err error
		if name == report.PlotsName {
			err = os.WriteFile(path, []byte("mine"), 0o600)
		} else if err = os.Mkdir(path, 0o700); err == nil {
			err = os.WriteFile(filepath.Join(path, "mine"), nil, 0o600)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, results.FileName), []byte(`{"experiment":"other","time":"2026-01-02T03:04:05Z"}`+"\n"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		before := files(t, dir)
		if _, err := report.Make(dir); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("something else is in the place of %s: %v", name, err)
		}
		if after := files(t, dir); !maps.Equal(before, after) {
			t.Errorf("something else is in the place of %s, and what was there has changed, or something is left", name)
		}
	}
}

// TestMakeBeside: what is not a report's stays.
func TestMakeBeside(t *testing.T) {
	dir := save(t, append(records(), transfers(6)...))
	mine := filepath.Join(dir, report.PlotsName, "mine.svg")
	if err := os.Mkdir(filepath.Dir(mine), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := report.Make(dir); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(mine); err != nil || string(b) != "mine" {
			t.Errorf("%q, %v", b, err)
		}
	}
}

const hostile = "</td><script>alert(1)</script>\x00\x1b|`*_[x](y) \"'\n# h"

// oddRecords have what no experiment makes.
func oddRecords() []results.Record {
	long := strings.Repeat(hostile, 100)
	odd := []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, -1, math.MaxFloat64, math.SmallestNonzeroFloat64}
	rs := []results.Record{{}, {Experiment: "no such"}, {Experiment: "nat-matrix", Case: "what"}, {Work: "work alone", OK: true}, {Way: "way alone", OK: true}}
	for i, v := range odd {
		for _, way := range []string{"fnwire", "s3", "wukong3", "wukong3-" + hostile, long} {
			for _, experiment := range []string{"transfer", "dag", hostile} {
				r := results.Record{
					Experiment: experiment, Case: way, Path: hostile, Work: long, Way: way, Bytes: int64(i) - 2, Seconds: v, OK: true, Rep: -i, Error: hostile, Config: long, Reason: hostile,
					Measured: map[string]float64{"warm_ms": v, "done_ms": v, "first_byte_ms": v, "goodput_mbps": v, hostile: v}, Phases: map[string]float64{long: v},
					Samples: map[string][]float64{"first_byte_ms": odd, hostile + "first_byte_ms": nil}, Marks: []string{hostile}, Modelled: []string{long},
					Bill: []results.Charge{{Item: hostile, For: long, Dollars: v}, {}}, Spans: []results.Span{{Row: long, Kind: hostile, From: v, To: v}, {From: 0, To: v}, {From: 1, To: 0}},
					Calibration: []results.Check{{What: hostile, Unit: hostile, Set: v, Measured: v}, {}}, Settings: map[string]string{"profile": hostile, long: long, "nats": hostile},
				}
				rs = append(rs, r)
			}
		}
	}
	return rs
}

// Whatever the records have, the page and the Markdown are well-formed, and show it as text.
func TestOddRecords(t *testing.T) {
	all := oddRecords()
	sets := [][]results.Record{all, nil}
	for i := 0; i < len(all); i += 5 { // alone, of each kind
		sets = append(sets, all[i:i+1])
	}
	for _, rs := range sets {
		var page, text bytes.Buffer
		if err := errors.Join(report.Write(&page, rs), report.WriteText(&text, rs)); err != nil {
			t.Fatal(err)
		}
		for _, not := range []string{"<script", "</td></td>"} {
			if strings.Contains(page.String(), not) {
				t.Fatalf("the page has %q", not)
			}
		}
		if strings.Count(page.String(), "<table") != strings.Count(page.String(), "</table>") || !strings.HasSuffix(strings.TrimSpace(page.String()), "</html>") && !strings.Contains(page.String(), "</html>") {
			t.Fatal("the page is cut short")
		}
	}
	for i := range all { // what JSON can hold
		all[i].Seconds = 0
		for _, m := range []map[string]float64{all[i].Measured, all[i].Phases} {
			maps.DeleteFunc(m, func(_ string, v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
		}
		all[i].Samples, all[i].Spans, all[i].Bill, all[i].Calibration = nil, nil, nil, nil
	}
	dir := save(t, all)
	if _, err := report.Make(dir); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(files(t, dir)["report.md"]) {
		code := strings.HasPrefix(line, "    ")
		if !code && strings.Contains(line, "<script") || strings.HasPrefix(line, "# h") {
			t.Errorf("a name is more than text in the Markdown: %.100s", line)
		}
	}
}

// Runs that differ in settings, program or machine are not thrown together.
func TestSections(t *testing.T) {
	rs := records()[:2]
	rs[1].Settings = map[string]string{"bytes": "2MiB"}
	other := rs[0]
	other.Commit = "def"
	var b bytes.Buffer
	if err := report.Write(&b, append(rs, other)); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(b.String(), "transfer</h2>"); n != 3 {
		t.Errorf("%d sections, want 3", n)
	}
}

// The page tells how peers were configured, and what was skipped; that counts as nothing else.
func TestConfiguredAndSkipped(t *testing.T) {
	one := func(c string, mbps float64) results.Record {
		return results.Record{
			Experiment: "throughput", Case: c, Path: c, OK: true, Config: "as it comes",
			Measured: map[string]float64{"goodput_mbps": mbps}, Settings: map[string]string{"bytes": "1MiB"},
		}
	}
	missing := one("coturn", 0)
	missing.OK, missing.Skipped, missing.Error, missing.Measured = false, true, "apt-get install coturn", nil
	rs := []results.Record{one("fnwire-direct", 300), one("plain-quic", 200), one("fnwire-direct", 600), missing}
	for name, write := range map[string]func(*bytes.Buffer) error{
		"page": func(b *bytes.Buffer) error { return report.Write(b, rs) },
		"text": func(b *bytes.Buffer) error { return report.WriteText(b, rs) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), "apt-get install coturn") || name == "page" && !strings.Contains(b.String(), "plain-quic: as it comes") {
			t.Errorf("the %s lacks a configuration or what was skipped:\n%s", name, b.String())
		}
		if strings.Contains(b.String(), "0 of 1") || strings.Contains(strings.ToLower(b.String()), "failed:") {
			t.Errorf("the %s counts what was skipped:\n%s", name, b.String())
		}
	}
}

// A network that is not what it was set to, and measurements that the emulator has bound, are told of at the top.
func TestCalibration(t *testing.T) {
	good := results.Check{What: "line of a, up: rate", Unit: "Mbit/s", Set: 600, Measured: 590}
	bad := results.Check{What: "line of a, up: delay, median", Unit: "ms", Set: 0.2, Measured: 0.23}
	chance := results.Check{What: "line of a, up: loss", Unit: "%", Set: 1, Measured: 1.3, Chance: 0.4}
	rs := records()[:3]
	for i := range rs {
		rs[i].Settings = map[string]string{"profile": "home"}
		rs[i].Calibration = []results.Check{good, bad, chance}
	}
	rs[1].Marks = []string{"bound by the emulator: <it>"}
	var page, text bytes.Buffer
	if err := errors.Join(report.Write(&page, rs), report.WriteText(&text, rs)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"<li>1. transfer, home: calibration is off: line of a, up: delay, median: set to 0.2 ms, measured 0.23</li>",
		"<li>1. transfer, home: bound by the emulator: &lt;it&gt; (1 of 3 measurements)</li>", "<td class=\"n\">&#43;15.0</td>", "-1.7", "<li>rate: 100 Mbit/s down, 20 up, the FCC",
	} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if top, _, _ := strings.Cut(page.String(), `<h2 id=`); strings.Count(top, "<li>") != 2 {
		t.Errorf("warnings at the top:\n%s", top)
	}
	for _, want := range []string{"WARNING calibration is off: line of a, up: delay, median", "WARNING bound by", "up: rate           Mbit/s  600   590       -1.7"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, text.String())
		}
	}
}
