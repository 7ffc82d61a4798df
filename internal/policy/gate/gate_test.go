package main

import (
	"bytes"
	"strings"
	"testing"
)

const (
	pass    = `{"Action":"pass","Package":"github.com/fnwire/fnwire/relay","Test":"TestA","Elapsed":0.1}` + "\n"
	pkgPass = `{"Action":"pass","Package":"github.com/fnwire/fnwire/relay","Elapsed":1}` + "\n"
	pkgFail = `{"Action":"fail","Package":"github.com/fnwire/fnwire/relay","Elapsed":1}` + "\n"
	fail    = `{"Action":"output","Package":"github.com/fnwire/fnwire/relay","Test":"TestB","Output":"    b_test.go:9: broken\n"}
{"Action":"fail","Package":"github.com/fnwire/fnwire/relay","Test":"TestB","Elapsed":0.2}
`
	skip = `{"Action":"output","Package":"github.com/fnwire/fnwire/relay","Test":"TestC/udp6","Output":"=== RUN   TestC/udp6\n"}
{"Action":"output","Package":"github.com/fnwire/fnwire/relay","Test":"TestC/udp6","Output":"    c_test.go:7: no IPv6 here\n"}
{"Action":"output","Package":"github.com/fnwire/fnwire/relay","Test":"TestC/udp6","Output":"--- SKIP: TestC/udp6 (0.00s)\n"}
{"Action":"skip","Package":"github.com/fnwire/fnwire/relay","Test":"TestC/udp6","Elapsed":0}
`
	noFiles = `{"Action":"skip","Package":"github.com/fnwire/fnwire/cmd/relay","Elapsed":0}` + "\n"
	panicky = `{"Action":"run","Package":"github.com/fnwire/fnwire/relay","Test":"TestD"}
{"Action":"output","Package":"github.com/fnwire/fnwire/relay","Test":"TestD","Output":"panic: test timed out\n"}
{"Action":"output","Package":"github.com/fnwire/fnwire/relay","Output":"FAIL github.com/fnwire/fnwire/relay\n"}
`
	noBuild = `{"ImportPath":"github.com/fnwire/fnwire/relay","Action":"build-output","Output":"relay.go:3: undefined: x\n"}
{"ImportPath":"github.com/fnwire/fnwire/relay","Action":"build-fail"}
{"Action":"fail","Package":"github.com/fnwire/fnwire/relay","Elapsed":0,"FailedBuild":"github.com/fnwire/fnwire/relay"}
`
)

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		name, allow, in string
		ok              bool
		want            []string
	}{
		{"good", "", pass + pkgPass, true, []string{"1 passed, 0 failed, 0 skipped\n"}},
		{"failed", "", pass + fail + pkgFail, false, []string{"broken", "1 passed, 1 failed, 0 skipped\n"}},
		{"nothing ran", "", noFiles, false, []string{"no test ran", "0 passed, 0 failed, 0 skipped\n"}},
		{"no events at all", "", "", false, []string{"no test ran"}},
		{"skip refused", "", pass + skip + pkgPass, false,
			[]string{"SKIPPED", "c_test.go:7: no IPv6 here (not allowed)", "1 passed, 0 failed, 1 skipped\n"}},
		{"skip allowed", "# why\n\nrelay TestC/udp6 the kernel lacks it\n", pass + skip + pkgPass, true,
			[]string{"no IPv6 here (allowed: the kernel lacks it)", "1 passed, 0 failed, 1 skipped\n"}},
		{"skip allowed by pattern", "re* TestC/* reason", pass + skip + pkgPass, true, []string{"1 skipped"}},
		{"skip allowed elsewhere", "transport TestC/udp6 reason", pass + skip + pkgPass, false,
			[]string{"not allowed", "note: not skipped here, though it may be: transport TestC/udp6"}},
		{"package without tests", "", noFiles + pass + pkgPass, true, []string{"(no test files)", "1 passed, 0 failed, 0 skipped"}},
		{"panic or timeout", "", pass + panicky + pkgFail, false,
			[]string{"unfinished: TestD", "panic: test timed out", "1 passed, 1 failed"}},
		{"does not compile", "", pass + noBuild, false, []string{"undefined: x", "1 passed, 1 failed"}},
		{"other lines pass through", "", "make: something\n" + pass + pkgPass, true, []string{"make: something\n"}},
		{"last line without newline", "", strings.TrimSuffix(pass, "\n"), true, []string{"1 passed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			allowed, err := parseAllow(strings.NewReader(c.allow))
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			g := newGate(&out, allowed)
			if err := g.read(strings.NewReader(c.in)); err != nil {
				t.Fatal(err)
			}
			if ok := g.verdict(); ok != c.ok {
				t.Errorf("verdict %v, want %v", ok, c.ok)
			}
			for _, want := range c.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in:\n%s", want, out.String())
				}
			}
		})
	}
}

func TestParseAllowRefuses(t *testing.T) {
	for _, text := range []string{"relay", "relay TestA", "relay [ why"} {
		if got, err := parseAllow(strings.NewReader(text)); err == nil {
			t.Errorf("%q: accepted as %v", text, got)
		}
	}
}
