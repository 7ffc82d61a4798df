package report_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
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

func TestMake(t *testing.T) {
	dir := t.TempDir()
	w, err := results.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := report.Make(dir); err == nil {
		t.Error("a report of nothing")
	}
	for _, r := range records() {
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path, err := report.Make(dir)
	if err != nil || path != filepath.Join(dir, "report.html") {
		t.Fatalf("Make: %q, %v", path, err)
	}
	html, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"fnwire-direct", "3 of 3", "0 of 1", "200<small>100 to 300</small>", "bytes=1MiB", "cannot &lt;do&gt; that", "abc"} {
		if !strings.Contains(string(html), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, not := range []string{"src=", "href=", "NaN", "<do>"} {
		if strings.Contains(string(html), not) {
			t.Errorf("the page has %q", not)
		}
	}
	if _, err := report.Make(t.TempDir()); err == nil {
		t.Error("a report of a directory without results")
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
	if n := strings.Count(b.String(), "<h2>transfer</h2>"); n != 3 {
		t.Errorf("%d sections, want 3", n)
	}
}

// The page tells ratios, how peers were configured, and what was skipped; that counts as nothing else.
func TestRatiosAndSkipped(t *testing.T) {
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
		for _, want := range []string{"fnwire-direct to plain-quic: 2.25", "apt-get install coturn"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("the %s lacks %q:\n%s", name, want, b.String())
			}
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
		"<li>transfer: calibration is off: line of a, up: delay, median: set to 0.2 ms, measured 0.23</li>",
		"<li>transfer: bound by the emulator: &lt;it&gt; (1 of 3 measurements)</li>", "<td class=\"n\">&#43;15.0</td>", "-1.7", "<li>rate: 100 Mbit/s down, 20 up, the FCC",
	} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if top, _, _ := strings.Cut(page.String(), "<h2>"); strings.Count(top, "<li>") != 2 {
		t.Errorf("warnings at the top:\n%s", top)
	}
	for _, want := range []string{"WARNING calibration is off: line of a, up: delay, median", "WARNING bound by", "up: rate           Mbit/s  600   590       -1.7"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, text.String())
		}
	}
}
