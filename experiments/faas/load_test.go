package faas

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write("README", "")
	write("notes/README", "")
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "bootstrap") {
		t.Errorf("no functions: %v", err)
	}
	if _, err := Load(filepath.Join(dir, "none")); err == nil {
		t.Error("loaded from nowhere")
	}
	write("plain/bootstrap", "")
	write("set/bootstrap", "")
	write("set/function.json", `{"memory_mb": 512, "timeout": "1m30s", "env": {"B": "2", "A": "1"}, "concurrency": 2, "nat": "symmetric", "no_freeze": true}`)
	got, err := Load(dir)
	want := []Function{
		{Name: "plain", Dir: filepath.Join(dir, "plain")},
		{Name: "set", Dir: filepath.Join(dir, "set"), MemoryMB: 512, Timeout: 90 * time.Second, Env: []string{"A=1", "B=2"}, Concurrency: 2, NAT: "symmetric", NoFreeze: true},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{`{`, `{"memory": 512}`, `{"timeout": "soon"}`, `{"timeout": "-1s"}`, strings.Repeat(" ", maxSettings+1)} {
		write("set/function.json", bad)
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "function set: function.json") {
			t.Errorf("%.40s: %v", bad, err)
		}
	}
}

func FuzzSettings(f *testing.F) {
	for _, s := range []string{`{}`, `{"memory_mb": 512, "timeout": "30s", "env": {"A": "1"}, "concurrency": 2, "nat": "cgn", "no_freeze": true}`, `{"timeout":""}`, `[]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var fn Function
		if fn.set(b) == nil && fn.Timeout < 0 {
			t.Fatalf("%+v", fn)
		}
	})
}
