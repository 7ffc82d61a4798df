package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"
)

// event is a line of `go test -json` (see `go doc test2json`).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output and build-fail
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

// allowance is a line of the allow file.
type allowance struct {
	pkg, test string // patterns of package path (below the module) and test name
	reason    string
}

// parseAllow reads the allow file: "PACKAGE TEST REASON..." a line, where PACKAGE is a path inside
// the module, PACKAGE and TEST may hold the patterns of path.Match, and the reason is not optional.
// Empty lines and lines that start with # are for people.
func parseAllow(r io.Reader) ([]allowance, error) {
	var all []allowance
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		text := strings.TrimSpace(lines.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		f := strings.Fields(text)
		if len(f) < 3 {
			return nil, fmt.Errorf("line %d: want package, test and the reason why the skip is right", n)
		}
		a := allowance{pkg: f[0], test: f[1], reason: strings.Join(f[2:], " ")}
		for _, p := range []string{a.pkg, a.test} {
			if _, err := path.Match(p, ""); err != nil {
				return nil, fmt.Errorf("line %d: %q: %w", n, p, err)
			}
		}
		all = append(all, a)
	}
	return all, lines.Err()
}

func (a allowance) covers(pkg, test string) bool {
	inPkg, _ := path.Match(a.pkg, pkg) // the patterns are known to be well formed
	inTest, _ := path.Match(a.test, test)
	return inPkg && inTest
}

type key struct{ pkg, test string }

// gate follows one run of `go test -json`.
type gate struct {
	out     io.Writer
	allowed []allowance
	used    map[allowance]bool
	output  map[key][]string // of tests and packages that have not ended
	failing map[string]bool  // packages in which a test has failed

	passed, failed, skipped, refused int
}

func newGate(out io.Writer, allowed []allowance) *gate {
	return &gate{
		out: out, allowed: allowed,
		used: map[allowance]bool{}, output: map[key][]string{}, failing: map[string]bool{},
	}
}

// read consumes events until r ends. Lines that are no events are passed through.
func (g *gate) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if strings.TrimSpace(line) != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) == nil && e.Action != "" {
				g.event(e)
			} else {
				fmt.Fprint(g.out, line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading test events: %w", err)
		}
	}
}

func (g *gate) event(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "output":
		g.output[k] = append(g.output[k], e.Output)
	case "build-output":
		fmt.Fprint(g.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			g.packageEnd(e)
		} else {
			g.testEnd(e)
		}
		delete(g.output, k)
	}
}

func (g *gate) testEnd(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "pass":
		g.passed++
	case "fail":
		g.failed++
		g.failing[e.Package] = true
		fmt.Fprintf(g.out, "FAILED   %s %s (%.2fs)\n", e.Package, e.Test, e.Elapsed)
		g.print(k)
	case "skip":
		g.skipped++
		said := reasonOf(g.output[k])
		for _, a := range g.allowed {
			if a.covers(relative(e.Package), e.Test) {
				g.used[a] = true
				fmt.Fprintf(g.out, "skipped  %s %s: %s (allowed: %s)\n", e.Package, e.Test, said, a.reason)
				return
			}
		}
		g.refused++
		fmt.Fprintf(g.out, "SKIPPED  %s %s: %s (not allowed)\n", e.Package, e.Test, said)
	}
}

func (g *gate) packageEnd(e event) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(g.out, "ok       %s (%.1fs)\n", e.Package, e.Elapsed)
	case "skip":
		fmt.Fprintf(g.out, "-        %s (no test files)\n", e.Package)
	case "fail":
		fmt.Fprintf(g.out, "FAILED   %s (%.1fs)\n", e.Package, e.Elapsed)
		if g.failing[e.Package] {
			return
		}
		// No test of it failed: it did not compile, panicked, timed out or failed in TestMain.
		g.failed++
		g.print(key{e.Package, ""})
		for k := range g.output {
			if k.pkg == e.Package && k.test != "" {
				fmt.Fprintf(g.out, "unfinished: %s\n", k.test)
				g.print(k)
			}
		}
	}
}

// verdict prints the closing lines and tells whether the run was good enough.
func (g *gate) verdict() bool {
	for _, a := range g.allowed {
		if !g.used[a] {
			fmt.Fprintf(g.out, "note: not skipped here, though it may be: %s %s\n", a.pkg, a.test)
		}
	}
	ok := g.failed == 0 && g.refused == 0
	if g.refused > 0 {
		fmt.Fprintf(g.out, "%d skipped that could have run: give the machine what they need, or list them with the reason\n", g.refused)
	}
	if g.passed+g.failed == 0 {
		fmt.Fprintln(g.out, "no test ran")
		ok = false
	}
	fmt.Fprintf(g.out, "%d passed, %d failed, %d skipped\n", g.passed, g.failed, g.skipped)
	return ok
}

func (g *gate) print(k key) {
	for _, line := range g.output[k] {
		fmt.Fprint(g.out, "    ", line)
	}
}

// reasonOf picks from a skipped test's output what it said to Skip.
func reasonOf(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		said = append(said, line)
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}

// relative is a package's path inside the module.
func relative(pkg string) string {
	const module = "github.com/fnwire/fnwire"
	return strings.TrimPrefix(strings.TrimPrefix(pkg, module), "/")
}
