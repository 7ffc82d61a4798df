package policy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// checklist are the headings in SECURITY.md under which each line is an item with the tests that hold it, and
// the fewest items that each must have.
var checklist = map[string]int{"Relay": 12, "Rendezvous": 4, "Wake hooks": 5, "Punching": 5, "Transfers": 3, "Parsers": 5}

var testName = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`")

// items returns, for each heading of the third level, the lines of its table with the tests they name, as DIR.NAME.
func items(text string) map[string]map[string][]string {
	found := map[string]map[string][]string{}
	heading := ""
	for line := range strings.Lines(text) {
		if h, ok := strings.CutPrefix(line, "#"); ok {
			heading = strings.Trim(h, "# \n")
			continue
		}
		cells := strings.Split(line, "|")
		if len(cells) != 4 || strings.HasPrefix(strings.TrimSpace(cells[1]), "---") || strings.TrimSpace(cells[2]) == "tests" {
			continue
		}
		if found[heading] == nil {
			found[heading] = map[string][]string{}
		}
		item := strings.TrimSpace(cells[1])
		found[heading][item] = nil
		for _, m := range testName.FindAllStringSubmatch(cells[2], -1) {
			found[heading][item] = append(found[heading][item], m[1]+"."+m[2])
		}
	}
	return found
}

// TestChecklist holds that every item of the list that a hostile reviewer goes by has tests, and that they exist.
func TestChecklist(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := items(string(text))
	for heading, least := range checklist {
		if n := len(found[heading]); n < least {
			t.Errorf("%s: %d items, want at least %d", heading, n, least)
		}
		for item, tests := range found[heading] {
			if len(tests) == 0 {
				t.Errorf("%s: %q has no test", heading, item)
			}
			for _, name := range tests {
				at := strings.LastIndexByte(name, '.')
				if !hasTest(t, name[:at], name[at+1:]) {
					t.Errorf("%s: %q: there is no test %s", heading, item, name)
				}
			}
		}
	}
}

// TestEveryFuzzTargetIsListed holds that the list of the product's parsers is whole, and that each target has seeds.
func TestEveryFuzzTargetIsListed(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(t), "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	target := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(f \*testing\.F\) \{\n((?:\t.*\n|\n)*)`)
	err = filepath.WalkDir(root(t), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == "experiments" {
			return filepath.SkipDir
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root(t), filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, m := range target.FindAllStringSubmatch(string(b), -1) {
			if name := filepath.ToSlash(dir) + "." + m[1]; !strings.Contains(string(text), "`"+name+"`") {
				t.Errorf("SECURITY.md does not list %s", name)
			}
			if !strings.Contains(m[2], "f.Add(") && !strings.Contains(m[2], "seed(f") {
				t.Errorf("%s in %s has no seeds", m[1], dir)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// hasTest reports whether a directory has a test, or fuzz target, of that name.
func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), filepath.FromSlash(dir), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}

func TestItems(t *testing.T) {
	got := items("## A\n### Relay\n| what | tests |\n| --- | --- |\n| one | `a/b.TestX`, `c.FuzzY` |\n| two | by hand |\n")
	if len(got["Relay"]) != 2 || strings.Join(got["Relay"]["one"], " ") != "a/b.TestX c.FuzzY" || len(got["Relay"]["two"]) != 0 {
		t.Errorf("%v", got)
	}
}
