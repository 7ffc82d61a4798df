package policy

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/doc"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/fnwire/fnwire"

// source is a Go file of the repository, whatever its build constraints.
type source struct {
	path    string // slash-separated, from the repository's root
	dir     string // "." for the root
	pkg     string // as its package clause has it
	test    bool   // *_test.go
	nested  bool   // belongs to a module of its own or to testdata: only gofmt and words apply
	text    []byte
	ast     *ast.File
	imports []string
}

// external tells whether the file is a test outside of the package that it tests.
func (s *source) external() bool { return s.test && strings.HasSuffix(s.pkg, "_test") }

func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = up
	}
}

// artifacts are what the Makefile's targets leave at the top level; .gitignore lists them too.
var artifacts = []string{"bin", "out", "cover.out", "cover.html"}

func artifact(name string) bool {
	return slices.Contains(artifacts, name) || slices.Contains([]string{".prof", ".pprof", ".test", ".trace"}, path.Ext(name))
}

// walk calls f for every file of the repository, artifacts and dot-directories apart.
func walk(t *testing.T, f func(rel string, nested bool)) {
	t.Helper()
	base := root(t)
	nested := map[string]bool{}
	err := filepath.WalkDir(base, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(base, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		top := !strings.Contains(rel, "/")
		switch {
		case rel == ".":
			return nil
		case d.IsDir() && (top && artifact(rel) || d.Name() == ".git"):
			return filepath.SkipDir
		case d.IsDir():
			_, err := os.Stat(filepath.Join(p, "go.mod"))
			nested[rel] = err == nil || nested[path.Dir(rel)] || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")
			return nil
		case d.Type().IsRegular() && !(top && artifact(rel)):
			f(rel, nested[path.Dir(rel)])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func sources(t *testing.T) []*source {
	t.Helper()
	base := root(t)
	var all []*source
	walk(t, func(rel string, nested bool) {
		if !strings.HasSuffix(rel, ".go") {
			return
		}
		text, err := os.ReadFile(filepath.Join(base, rel))
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), rel, text, parser.ParseComments)
		if err != nil {
			t.Errorf("%v", err)
			return
		}
		s := &source{
			path: rel, dir: path.Dir(rel), pkg: file.Name.Name, nested: nested,
			test: strings.HasSuffix(rel, "_test.go"), text: text, ast: file,
		}
		for _, i := range file.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			s.imports = append(s.imports, p)
		}
		all = append(all, s)
	})
	if len(all) == 0 {
		t.Fatal("no Go files found")
	}
	return all
}

// packages groups the module's own files by directory.
func packages(t *testing.T) map[string][]*source {
	t.Helper()
	byDir := map[string][]*source{}
	for _, s := range sources(t) {
		if !s.nested {
			byDir[s.dir] = append(byDir[s.dir], s)
		}
	}
	return byDir
}

func TestTopLevel(t *testing.T) {
	dirs := []string{"cmd", "experiments", "fnlib", "internal", "relay", "rendezvous", "transport"}
	files := []string{
		"ARCHITECTURE.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md", "go.mod", "go.sum",
	}
	entries, err := os.ReadDir(root(t))
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || artifact(name) {
			continue
		}
		have = append(have, name)
		if !slices.Contains(dirs, name) && !slices.Contains(files, name) {
			t.Errorf("%s does not belong at the top level", name)
		}
	}
	for _, name := range files {
		if !slices.Contains(have, name) {
			t.Errorf("%s is missing at the top level", name)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, s := range sources(t) {
		want, err := format.Source(s.text)
		if err != nil {
			t.Errorf("%s: %v", s.path, err)
		} else if !bytes.Equal(want, s.text) {
			t.Errorf("%s: not as gofmt has it", s.path)
		}
	}
}

// Written in two parts, or this file would not pass.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)

func TestNothingLeftToDo(t *testing.T) {
	base := root(t)
	kinds := []string{".go", ".md", ".yml", ".yaml", ".mod", ".sh", ".html", ".tmpl", ".txt", ".json"}
	names := []string{"Makefile", "run", "skips"}
	walk(t, func(rel string, _ bool) {
		if !slices.Contains(kinds, path.Ext(rel)) && !slices.Contains(names, path.Base(rel)) {
			return
		}
		text, err := os.ReadFile(filepath.Join(base, rel))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			if m := unfinished.Find(line); m != nil {
				t.Errorf("%s:%d: %s: do it, or file an issue", rel, i+1, m)
			}
		}
	})
}

func TestOneCommentPerPackage(t *testing.T) {
	for dir, files := range packages(t) {
		var where []string
		for _, s := range files {
			if s.ast.Doc == nil || s.external() {
				continue
			}
			where = append(where, path.Base(s.path))
			text := s.ast.Doc.Text()
			if s.pkg != "main" && !strings.HasPrefix(text, "Package "+s.pkg+" ") {
				t.Errorf("%s: the package comment begins with %q", s.path, "Package "+s.pkg)
			}
			if s.pkg == "main" && !strings.HasPrefix(text, "Command "+path.Base(dir)+" ") {
				t.Errorf("%s: the comment of a command begins with %q", s.path, "Command "+path.Base(dir))
			}
			if s.test {
				t.Errorf("%s: the package comment is in a test file", s.path)
			}
		}
		sort.Strings(where)
		if len(where) != 1 {
			t.Errorf("%s: want one package comment, have %d %v", dir, len(where), where)
		}
	}
}

// withoutExample lists the packages that need no Example, and why. Commands (package main) are
// shown in README and need none either.
var withoutExample = map[string]string{
	"internal/policy":                "it has no code",
	"internal/cli":                   "the commands are its examples",
	"experiments/cli":                "the commands are its examples",
	"experiments/lab/labtest":        "it works on a running test only",
	"fnlib/store/storetest":          "it works on a running test only",
	"internal/proxy/proxytest":       "it works on a running test only",
	"internal/testserver/servertest": "it works on a running test only",
}

func TestEveryPackageHasAnExample(t *testing.T) {
	all := packages(t)
	for dir, files := range all {
		if files[0].pkg == "main" || withoutExample[dir] != "" {
			continue
		}
		checked := false
		for _, s := range files {
			if !s.test {
				continue
			}
			for _, e := range doc.Examples(s.ast) {
				checked = checked || e.Output != "" || e.EmptyOutput
			}
		}
		if !checked {
			t.Errorf("%s: no Example whose output is checked", dir)
		}
	}
	for dir := range withoutExample {
		if all[dir] == nil {
			t.Errorf("withoutExample names %s, which does not exist", dir)
		}
	}
}

// TestPunchIsPure holds that the hole-punch state machine owns no socket, clock or goroutine.
func TestPunchIsPure(t *testing.T) {
	for _, s := range packages(t)["transport/punch"] {
		if s.test {
			continue
		}
		for _, msg := range impurities(s) {
			t.Error(msg)
		}
	}
}

func impurities(s *source) (found []string) {
	for _, p := range s.imports {
		if slices.Contains([]string{"net", "os", "syscall", "context", "sync", "runtime", "golang.org/x/sys/unix"}, p) {
			found = append(found, fmt.Sprintf("%s imports %s", s.path, p))
		}
	}
	ast.Inspect(s.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, s.path+" starts a goroutine")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{
				"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick",
			}, n.Sel.Name) {
				found = append(found, fmt.Sprintf("%s reads the clock: time.%s", s.path, n.Sel.Name))
			}
		}
		return true
	})
	return found
}

func TestImpurities(t *testing.T) {
	text := `package p
import ("net"; "net/netip"; "time")
func f(d time.Duration, _ netip.Addr) { go f(d, netip.Addr{}); _ = time.Now() }
`
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", text, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := impurities(&source{path: "p.go", ast: file, imports: []string{"net", "net/netip", "time"}})
	want := []string{"p.go imports net", "p.go starts a goroutine", "p.go reads the clock: time.Now"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
