// Command gate reads the output of `go test -json` on standard input and decides whether the run is
// good enough for CI: no test failed, at least one ran, and none was skipped that could have run.
//
//	go test -json ./... | go run ./internal/policy/gate [-allow FILE] [-summary FILE]
//
// Every skipped test is printed with what it said. A skip passes only if FILE lists it with a reason;
// see [parseAllow] for the format. The last line is "N passed, N failed, N skipped".
// It never runs a test itself.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	allowFile := flag.String("allow", ".ci/skips", "file that lists the tests that may be skipped")
	summary := flag.String("summary", "", "file to write 'PASSED FAILED SKIPPED' to")
	flag.Parse()

	ok, err := run(*allowFile, *summary)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gate:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(allowFile, summary string) (ok bool, err error) {
	f, err := os.Open(allowFile)
	if err != nil {
		return false, err
	}
	allowed, err := parseAllow(f)
	_ = f.Close()
	if err != nil {
		return false, fmt.Errorf("%s: %w", allowFile, err)
	}
	g := newGate(os.Stdout, allowed)
	if err := g.read(os.Stdin); err != nil {
		return false, err
	}
	ok = g.verdict()
	if summary != "" {
		counts := fmt.Sprintln(g.passed, g.failed, g.skipped)
		if err := os.WriteFile(summary, []byte(counts), 0o644); err != nil {
			return false, err
		}
	}
	return ok, nil
}
