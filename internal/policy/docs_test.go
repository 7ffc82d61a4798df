package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// block is a block of code in a Markdown document: fenced, or a line that is indented by four spaces.
type block struct {
	line  int    // of its first line of text
	lang  string // the word after the fence
	lines []string
}

var makeSpan = regexp.MustCompile("`(make [^`]+)`")

func blocks(text string) (found []block) {
	var open *block
	for i, line := range strings.Split(text, "\n") {
		fence, is := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case is && open == nil:
			lang, _, _ := strings.Cut(fence, " ")
			open = &block{line: i + 2, lang: lang}
		case is:
			found = append(found, *open)
			open = nil
		case open != nil:
			open.lines = append(open.lines, line)
		case strings.HasPrefix(line, "    ") && strings.TrimSpace(line) != "":
			found = append(found, block{line: i + 1, lines: []string{strings.TrimSpace(line)}})
		default:
			for _, m := range makeSpan.FindAllStringSubmatch(line, -1) {
				found = append(found, block{line: i + 1, lang: "sh", lines: []string{m[1]}})
			}
		}
	}
	return found
}

// documents are the Markdown files at the top level.
func documents(t *testing.T) map[string]string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root(t), "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	docs := map[string]string{}
	for _, f := range found {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		docs[filepath.Base(f)] = string(text)
	}
	return docs
}

func targets(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z][a-z-]*):([^=]|$)`).FindAllStringSubmatch(string(text), -1) {
		found[m[1]] = true
	}
	return found
}

func TestMakeListsItsTargets(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"build", "demo", "test", "race", "lint", "fuzz", "bench", "lab", "report", "cover", "clean",
	} {
		if !regexp.MustCompile(`(?m)^` + want + `:.*## .`).Match(text) {
			t.Errorf("the Makefile has no target %s with a ## help", want)
		}
	}
	if !regexp.MustCompile(`(?m)^\.DEFAULT_GOAL := help$`).Match(text) {
		t.Error("make alone does not list the targets")
	}
}

var (
	makeCall = regexp.MustCompile(`(?:^|[;&|(] *|\$ +|sudo +)make((?: +[A-Za-z0-9_=./,:'"*-]+)*)`)
	command  = regexp.MustCompile(`(?:^|[^\w./-])(?:\./)?(?:bin|cmd)/([a-z][a-z0-9-]*)`)
	ownFile  = regexp.MustCompile(`(?:^|[\s(])((?:\.ci|internal|experiments|relay|rendezvous|transport|fnlib)/[\w./-]*\w)`)
)

// stale returns what is wrong with a line that a reader is told to type.
func stale(line string, isTarget, isCommand, isFile func(string) bool) (found []string) {
	line, _, _ = strings.Cut(line, " #")
	for _, m := range makeCall.FindAllStringSubmatch(line, -1) {
		for _, word := range strings.Fields(m[1]) {
			if !strings.Contains(word, "=") && !strings.HasPrefix(word, "-") && !isTarget(word) {
				found = append(found, fmt.Sprintf("the Makefile has no target %s", word))
			}
		}
	}
	for _, m := range command.FindAllStringSubmatch(line, -1) {
		if !isCommand(m[1]) {
			found = append(found, fmt.Sprintf("there is no command %s", m[1]))
		}
	}
	for _, m := range ownFile.FindAllStringSubmatch(line, -1) {
		if name := strings.TrimSuffix(m[1], "/..."); !isFile(name) {
			found = append(found, fmt.Sprintf("there is no %s", name))
		}
	}
	return found
}

// TestDocumentsTellWhatExists checks the shell blocks of the documents against Makefile and tree.
func TestDocumentsTellWhatExists(t *testing.T) {
	base, known := root(t), targets(t)
	isTarget := func(s string) bool { return known[s] }
	isCommand := func(s string) bool { return exists(t, "cmd/"+s) }
	isFile := func(s string) bool {
		_, err := os.Stat(filepath.Join(base, s))
		return err == nil
	}
	for name, text := range documents(t) {
		for _, b := range blocks(text) {
			if !slices.Contains([]string{"", "sh", "bash", "console", "shell"}, b.lang) {
				continue
			}
			for i, line := range b.lines {
				if b.lang == "" && !strings.HasPrefix(strings.TrimSpace(line), "$ ") && !strings.HasPrefix(line, "make ") {
					continue // a picture or an output
				}
				for _, wrong := range stale(line, isTarget, isCommand, isFile) {
					t.Errorf("%s:%d: %s", name, b.line+i, wrong)
				}
			}
		}
	}
}

// TestReadmeCodeIsAnExample holds that the Go code in README stands, line for line, in a test file of
// fnlib, where it is compiled and its output is checked.
func TestReadmeCodeIsAnExample(t *testing.T) {
	var files []string
	for _, s := range packages(t)["fnlib"] {
		if s.test {
			files = append(files, squeeze(strings.Split(string(s.text), "\n")))
		}
	}
	for _, b := range blocks(documents(t)["README.md"]) {
		if b.lang != "go" {
			continue
		}
		code := squeeze(b.lines)
		if !slices.ContainsFunc(files, func(f string) bool { return strings.Contains(f, code) }) {
			t.Errorf("README.md:%d: this code stands in no test file of fnlib", b.line)
		}
	}
}

// squeeze drops indentation and empty lines.
func squeeze(lines []string) string {
	var b strings.Builder
	b.WriteByte('\n')
	for _, l := range lines {
		if l = strings.TrimSpace(l); l != "" {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}

func TestStale(t *testing.T) {
	is := func(known ...string) func(string) bool {
		return func(s string) bool { return slices.Contains(known, s) }
	}
	for line, want := range map[string]int{
		"make demo":                          0,
		"make test TESTFLAGS=-short # quick": 0,
		"$ make demo && make gone":           1,
		"make gone also":                     2,
		"make -j2 demo":                      0,
		"sudo make demo":                     0,
		"bin/relay --id a":                   0,
		"./bin/relayd":                       1,
		"go run ./cmd/relay":                 0,
		"go run ./cmd/nothing":               1,
		"go test ./transport/...":            0,
		"bash .ci/run":                       0,
		"bash .ci/walk":                      1,
		"ls /usr/bin/env":                    0,
	} {
		got := stale(line, is("demo", "test"), is("relay"), is(".ci/run", "transport"))
		if len(got) != want {
			t.Errorf("%q: %q, want %d findings", line, got, want)
		}
	}
}

func TestBlocks(t *testing.T) {
	loose := blocks("Type `make demo` or\n\n    make test  # all\n")
	if len(loose) != 2 || loose[0].lines[0] != "make demo" || loose[1].lines[0] != "make test  # all" || loose[1].line != 3 {
		t.Errorf("%+v", loose)
	}
	got := blocks("a\n```sh\nmake demo\n```\nb\n\n```\nx\ny\n```\n")
	if len(got) != 2 || got[0].lang != "sh" || got[0].line != 3 || len(got[0].lines) != 1 || len(got[1].lines) != 2 {
		t.Errorf("%+v", got)
	}
}
