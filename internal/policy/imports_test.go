package policy

import (
	"slices"
	"strings"
	"testing"
)

// within tells whether dir is base or below it.
func within(dir, base string) bool { return dir == base || strings.HasPrefix(dir, base+"/") }

// part is the part of the design that a directory belongs to.
func part(dir string) string {
	for _, p := range []string{
		"relay/server", "rendezvous/server", "rendezvous/wake", "relay", "rendezvous", "transport", "fnlib/examples", "fnlib", "cmd", "experiments",
		"internal",
	} {
		if within(dir, p) {
			return p
		}
	}
	return ""
}

// arrows says what the packages of a part may import besides those of their own part.
var arrows = map[string][]string{
	"internal":          nil,
	"relay":             {"internal"},
	"relay/server":      {"internal", "relay"},
	"rendezvous":        {"internal"},
	"rendezvous/server": {"internal", "rendezvous", "rendezvous/wake"},
	"rendezvous/wake":   {"internal"},
	"transport":         {"internal"},
	"fnlib":             {"internal", "relay", "rendezvous", "transport"},
	"fnlib/examples":    {"fnlib"}, // as a function's author could write them
	"experiments":       {"internal", "relay", "relay/server", "rendezvous", "rendezvous/server", "transport", "fnlib"},
	"cmd": {
		"internal", "relay", "relay/server", "rendezvous", "rendezvous/server", "rendezvous/wake", "transport", "fnlib", "experiments",
	},
}

// mayImport tells whether a file in directory from may import the package in directory to. External
// tests join what they need for a real run, but never commands or experiments. fnlib knows what a store is,
// but no driver.
func mayImport(from, to string, externalTest bool) bool {
	a, b := part(from), part(to)
	switch {
	case within(to, "cmd"):
		return false
	case b == "experiments":
		return a == "cmd" || a == "experiments"
	case externalTest:
		return true
	case a == "fnlib" && to != "fnlib/store" && within(to, "fnlib/store"):
		return within(from, "fnlib/store")
	}
	return a == b || slices.Contains(arrows[a], b)
}

func TestArrows(t *testing.T) {
	for dir, files := range packages(t) {
		if part(dir) == "" {
			t.Errorf("%s: no part of the design", dir)
			continue
		}
		for _, s := range files {
			for _, p := range s.imports {
				to, ours := strings.CutPrefix(p, module+"/")
				if ours && !(s.external() && to == dir) && !mayImport(dir, to, s.external()) {
					t.Errorf("%s imports %s: %s may import only %v and itself", s.path, to, part(dir), arrows[part(dir)])
				}
			}
		}
	}
}

func TestMayImport(t *testing.T) {
	for _, c := range []struct {
		from, to string
		external bool
		want     bool
	}{
		{"cmd/fnwire", "rendezvous/server", false, true},
		{"cmd/experiments", "experiments/lab", false, true},
		{"cmd/fnwire", "cmd/relay", false, false},
		{"experiments", "experiments/lab", false, true},
		{"experiments/lab", "fnlib", false, true},
		{"experiments/lab", "cmd/fnwire", false, false},
		{"fnlib", "transport", false, true},
		{"fnlib", "transport/punch", false, true},
		{"fnlib", "fnlib/store", false, true},
		{"fnlib", "fnlib/store/file", false, false},
		{"fnlib", "fnlib/store/file", true, true},
		{"fnlib", "fnlib/store/open", false, false},
		{"fnlib/store/s3", "fnlib/store", false, true},
		{"fnlib/store/s3", "fnlib/store/internal/source", false, true},
		{"fnlib/store/open", "fnlib/store/s3", false, true},
		{"cmd/fnwire", "fnlib/store/open", false, true},
		{"fnlib", "relay/server", false, false},
		{"fnlib", "relay/server", true, true},
		{"fnlib/examples/lambda", "fnlib/store/open", false, true},
		{"fnlib/examples/lambda", "internal/job", false, false},
		{"fnlib", "fnlib/examples/lambda", false, false},
		{"fnlib", "experiments/lab", true, false},
		{"relay", "transport", false, false},
		{"relay", "rendezvous", false, false},
		{"relay", "relay/server", false, false},
		{"relay/server", "relay", false, true},
		{"relay/server", "rendezvous", false, false},
		{"rendezvous/server", "rendezvous/wake", false, true},
		{"rendezvous/wake", "rendezvous", false, false},
		{"fnlib", "rendezvous/wake", false, false},
		{"relayed", "internal/job", false, false},
		{"transport", "relay", false, false},
		{"transport", "relay", true, true},
		{"transport/punch", "internal/job", false, true},
		{"internal/udpx", "internal/job", false, true},
		{"internal/natsim", "transport", false, false},
	} {
		if got := mayImport(c.from, c.to, c.external); got != c.want {
			t.Errorf("%s -> %s (external test: %v): %v, want %v", c.from, c.to, c.external, got, c.want)
		}
	}
}

// fence keeps a library to a few directories. A library is an import path and all below it.
type fence struct {
	libraries []string
	dirs      []string // and all below; a trailing * stands for any ending
	tests     []string // directories whose tests may use it too; "*" for all
}

var fences = []fence{
	// The plain QUIC baseline of the experiments is measured against, and must not go through transport.
	{[]string{"github.com/quic-go/quic-go"}, []string{"transport", "experiments"}, nil},
	// TestOneFileAsksSTUN says more. For tests it is an independent implementation to compare with.
	{[]string{"github.com/pion/stun"}, []string{"transport"}, []string{"*"}},
	{[]string{"github.com/nats-io/nats.go"}, []string{"rendezvous", "fnlib/store/nats*", "cmd", "experiments"}, nil},
	// The driver of NATS stores is tested against a server that is not the rendezvous' too.
	{[]string{"github.com/nats-io/nats-server"}, []string{"rendezvous/server", "experiments/worker"}, []string{"rendezvous", "fnlib/store/nats*"}},
	{[]string{"github.com/prometheus"}, []string{"relay/server", "rendezvous/server", "cmd", "experiments"}, nil},
	{[]string{"github.com/aws/aws-sdk-go", "github.com/aws/aws-sdk-go-v2", "github.com/aws/smithy-go", "github.com/minio/minio-go"},
		[]string{"fnlib/store/s3*", "cmd", "experiments"}, nil},
	{[]string{"github.com/redis", "github.com/gomodule/redigo"}, []string{"fnlib/store/redis*", "cmd", "experiments"}, nil},
	{[]string{"github.com/google/nftables", "github.com/vishvananda/netlink", "github.com/vishvananda/netns"},
		[]string{"experiments"}, nil},
	{[]string{"github.com/aws/aws-lambda-go"}, []string{"fnlib/examples", "experiments/faas/echo", "experiments/dag/function"}, nil},
	{[]string{"github.com/gorilla/websocket", "github.com/coder/websocket"}, []string{"relay"}, nil},
	{[]string{"github.com/klauspost/compress"}, []string{"internal/zchunk"}, nil},
	{[]string{"gonum.org/v1/plot", "codeberg.org/go-fonts", "golang.org/x/image"}, []string{"experiments/report"}, nil},
	{[]string{"github.com/spf13", "github.com/schollz/progressbar"}, []string{"cmd", "internal/cli", "experiments"}, nil},
}

func inLibrary(importPath, library string) bool {
	rest, ok := strings.CutPrefix(importPath, library)
	return ok && (rest == "" || rest[0] == '/')
}

func inDirs(dir string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool {
		if stem, open := strings.CutSuffix(d, "*"); open {
			return strings.HasPrefix(dir, stem)
		}
		return within(dir, d)
	})
}

func fenced(dir, importPath string, test bool) bool {
	for _, f := range fences {
		hit := slices.ContainsFunc(f.libraries, func(l string) bool { return inLibrary(importPath, l) })
		if hit && !inDirs(dir, f.dirs) && !(test && inDirs(dir, f.tests)) {
			return true
		}
	}
	return libp2pHost(importPath)
}

// libp2pHost tells whether an import is more of libp2p than its identities and its TLS.
func libp2pHost(importPath string) bool {
	rest, ok := strings.CutPrefix(importPath, "github.com/libp2p/go-libp2p")
	return ok && (rest == "" || rest[0] == '/') && !within(rest, "/core") && rest != "/p2p/security/tls"
}

func TestFences(t *testing.T) {
	for dir, files := range packages(t) {
		for _, s := range files {
			for _, p := range s.imports {
				if fenced(dir, p, s.test) {
					t.Errorf("%s imports %s, which does not belong there", s.path, p)
				}
			}
		}
	}
}

func TestOneFileAsksSTUN(t *testing.T) {
	var users []string
	for _, files := range packages(t) {
		for _, s := range files {
			uses := slices.ContainsFunc(s.imports, func(p string) bool { return inLibrary(p, "github.com/pion/stun") })
			if uses && !s.test {
				users = append(users, s.path)
			}
		}
	}
	if len(users) > 1 {
		t.Errorf("one file may import pion/stun, not %v", users)
	}
}

func TestFenced(t *testing.T) {
	for _, c := range []struct {
		dir, importPath string
		test, want      bool
	}{
		{"transport", "github.com/quic-go/quic-go", false, false},
		{"fnlib", "github.com/quic-go/quic-go/logging", false, true},
		{"fnlib", "github.com/quic-go/quic-go", true, true},
		{"relay/server", "github.com/pion/stun/v2", false, true},
		{"relay/server", "github.com/pion/stun/v2", true, false},
		{"fnlib/store/nats", "github.com/nats-io/nats.go/jetstream", false, false},
		{"fnlib/store/natsobj", "github.com/nats-io/nats.go", false, false},
		{"fnlib", "github.com/nats-io/nats.go", false, true},
		{"fnlib/store/natsobj", "github.com/nats-io/nats-server/v2/server", false, true},
		{"fnlib/store/natsobj", "github.com/nats-io/nats-server/v2/server", true, false},
		{"rendezvous", "github.com/nats-io/nats-server/v2/server", false, true},
		{"rendezvous", "github.com/nats-io/nats-server/v2/server", true, false},
		{"rendezvous/server", "github.com/nats-io/nats-server/v2/server", false, false},
		{"cmd/fnwire", "github.com/nats-io/nats-server/v2/server", false, true},
		{"relay", "github.com/prometheus/client_golang/prometheus", false, true},
		{"fnlib/examples/lambda", "github.com/aws/aws-lambda-go/lambda", false, false},
		{"fnlib", "github.com/aws/aws-lambda-go/lambda", false, true},
		{"relay", "github.com/gorilla/websocket", false, false},
		{"relay/server", "github.com/gorilla/websocket", false, false},
		{"fnlib", "github.com/gorilla/websocket", true, true},
		{"transport", "github.com/gorilla/websocket", false, true},
		{"transport", "github.com/libp2p/go-libp2p/core/peer", false, false},
		{"transport", "github.com/libp2p/go-libp2p/p2p/security/tls", false, false},
		{"experiments", "github.com/libp2p/go-libp2p", false, true},
		{"experiments", "github.com/libp2p/go-libp2p/p2p/host/basic", false, true},
		{"fnlib", "github.com/klauspost/compress/zstd", false, true},
		{"internal/zchunk", "github.com/klauspost/compress/zstd", false, false},
		{"fnlib", "github.com/klauspost/cpuid/v2", false, false},
		{"experiments/report/chart", "gonum.org/v1/plot/vg", false, false},
		{"experiments/suite", "gonum.org/v1/plot/vg", false, true},
	} {
		if got := fenced(c.dir, c.importPath, c.test); got != c.want {
			t.Errorf("%s imports %s (test: %v): fenced %v, want %v", c.dir, c.importPath, c.test, got, c.want)
		}
	}
}
