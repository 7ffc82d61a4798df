package policy

import (
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// platforms are the systems that functions and the user's command run on.
var platforms = []string{"linux/amd64", "linux/arm64", "darwin/arm64", "windows/amd64"}

// unreachable is what no binary may carry because it links fnlib.
var unreachable = []string{
	"github.com/nats-io/nats-server",
	"github.com/nats-io/nats.go/jetstream", // signalling is NATS without it, only the driver of a store needs it
	"github.com/prometheus",
	"github.com/aws/aws-sdk-go",
	"github.com/aws/aws-sdk-go-v2",
	"github.com/aws/smithy-go",
	"github.com/minio/minio-go",
	"github.com/redis",
	"github.com/gomodule/redigo",
	"github.com/spf13",
	"testing",
	module + "/relay/server",
	module + "/rendezvous/server",
	module + "/experiments",
	module + "/internal/natsim",
	module + "/internal/testserver",
}

// host is what makes libp2p a full host. Its TLS alone reaches other parts of p2p.
var host = []string{"config", "p2p/discovery", "p2p/host", "p2p/net/swarm", "p2p/protocol", "p2p/transport"}

// heavy tells whether an import path is one that a function must not reach.
func heavy(importPath string) bool {
	if rest, ok := strings.CutPrefix(importPath, "github.com/libp2p/go-libp2p"); ok {
		return rest == "" || inDirs(strings.TrimPrefix(rest, "/"), host)
	}
	return slices.ContainsFunc(unreachable, func(l string) bool { return inLibrary(importPath, l) })
}

// exists tells whether a directory of the repository holds Go files yet.
func exists(t *testing.T, dir string) bool {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root(t), dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found) > 0
}

// run runs the go command at the repository's root for a platform and returns its standard output.
func run(t *testing.T, platform string, args ...string) string {
	t.Helper()
	goos, goarch, _ := strings.Cut(platform, "/")
	var stderr strings.Builder
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: go %s: %v\n%s", platform, strings.Join(args, " "), err, &stderr)
	}
	return string(out)
}

// TestFunctionStaysLight holds that a program which links fnlib reaches no server, no full libp2p
// host, no metrics library and no client of a store that it did not ask for.
func TestFunctionStaysLight(t *testing.T) {
	if !exists(t, "fnlib") {
		t.Log("there is no fnlib yet")
		return
	}
	for _, platform := range platforms {
		for p := range strings.Lines(run(t, platform, "list", "-deps", "./internal/policy/testdata/tiny")) {
			if p = strings.TrimSpace(p); heavy(p) {
				t.Errorf("%s: a function reaches %s", platform, p)
			}
		}
	}
}

// TestStoresStayApart holds that each storage backend can be linked without the others. Package open is there to link them all.
func TestStoresStayApart(t *testing.T) {
	for dir := range packages(t) {
		name, ok := strings.CutPrefix(dir, "fnlib/store/")
		if !ok || name == "open" {
			continue
		}
		for p := range strings.Lines(run(t, platforms[0], "list", "-deps", "./"+dir)) {
			other, ok := strings.CutPrefix(strings.TrimSpace(p), module+"/fnlib/store/")
			if ok && !within(other, name) && exists(t, "fnlib/store/"+other) && !within(other, "internal") {
				t.Errorf("fnlib/store/%s links fnlib/store/%s", name, other)
			}
		}
	}
}

func TestHeavy(t *testing.T) {
	for p, want := range map[string]bool{
		"github.com/nats-io/nats-server/v2/server":       true,
		"github.com/nats-io/nats.go":                     false,
		"github.com/nats-io/nats.go/jetstream":           true,
		"github.com/libp2p/go-libp2p":                    true,
		"github.com/libp2p/go-libp2p/p2p/host/basic":     true,
		"github.com/libp2p/go-libp2p/p2p/security/tls":   false,
		"github.com/libp2p/go-libp2p/core/peer":          false,
		"github.com/prometheus/client_golang/prometheus": true,
		"github.com/aws/aws-sdk-go-v2/service/s3":        true,
		"github.com/redis/rueidis":                       true,
		"github.com/fnwire/fnwire/rendezvous":            false,
		"github.com/fnwire/fnwire/rendezvous/server":     true,
		"testing":                              true,
		"testingother":                         false,
		"github.com/libp2p/go-libp2p-asn-util": false,
		"github.com/libp2p/go-libp2p/p2p/net/upgrader":     false,
		"github.com/libp2p/go-libp2p/p2p/transport/quic":   true,
		"github.com/libp2p/go-libp2p/p2p/net/swarm":        true,
		"github.com/libp2p/go-libp2p/p2p/protocol/circuit": true,
	} {
		if got := heavy(p); got != want {
			t.Errorf("%s: %v, want %v", p, got, want)
		}
	}
}

// TestBinary links a function and looks at the modules that its binary says it holds.
func TestBinary(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a binary")
	}
	if !exists(t, "fnlib") {
		t.Log("there is no fnlib yet")
		return
	}
	exe := filepath.Join(t.TempDir(), "tiny")
	run(t, "linux/amd64", "build", "-trimpath", "-ldflags=-s -w", "-o", exe, "./internal/policy/testdata/tiny")
	info, err := buildinfo.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range info.Deps {
		if m.Path != "github.com/libp2p/go-libp2p" && heavy(m.Path) {
			t.Errorf("the binary holds %s %s", m.Path, m.Version)
		}
	}
	stat, err := os.Stat(exe)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB, %d modules", float64(stat.Size())/1e6, len(info.Deps))
}

// TestCompilesEverywhere compiles what runs on other systems than the servers do.
func TestCompilesEverywhere(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles for four platforms")
	}
	for _, dir := range []string{"fnlib", "cmd/fnwire"} {
		if !exists(t, dir) {
			t.Logf("there is no %s yet", dir)
			continue
		}
		for _, platform := range platforms {
			run(t, platform, "build", "-trimpath", "-o", os.DevNull, "./"+dir)
		}
	}
}
