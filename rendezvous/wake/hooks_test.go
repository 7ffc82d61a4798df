package wake_test

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous/wake"
)

func literal(ref string) (string, error) { return ref, nil }

func TestLoad(t *testing.T) {
	j := job.NewKey().ID()
	dir := t.TempDir()
	t.Setenv("WAKE_TEST_SECRET", vectorSecret)
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("secret", vectorSecret+"\nwhsec_"+strings.Repeat("QUJD", 8)+"\n")
	h, err := wake.Load(write("hooks.json", `{"hooks":[
		{"job":"`+j.String()+`","name":"reduce-?","url":"https://fn.example/{job}/start?name={name}","secret":"env:WAKE_TEST_SECRET"},
		{"name":"reduce-*","url":"http://10.0.0.7:8080/x","secret":"file:secret","timeout":"2s","start":"10s"},
		{"job":"*","name":"map","url":"https://[2001:db8::1]/","secret":"`+vectorSecret+`"}]}`))
	if err != nil || h.Len() != 3 {
		t.Fatal(h, err)
	}
	other := job.NewKey().ID()
	first := h.Find(j, "reduce-0")
	if first == nil || first.Host() != "fn.example" || first.Timeout() != 15*time.Second || first.Start() != time.Minute {
		t.Fatalf("%+v", first)
	}
	if u := first.Target(wake.Data{Job: j, Name: "reduce-0"}); u != "https://fn.example/"+j.String()+"/start?name=reduce-0" {
		t.Errorf("URL %s", u)
	}
	if second := h.Find(j, "reduce-10"); second == nil || second != h.Find(other, "reduce-0") || second.Timeout() != 2*time.Second || second.Start() != 10*time.Second {
		t.Errorf("%+v", second)
	}
	if h.Find(j, "map") == nil || h.Find(j, "mapper") != nil || (*wake.Hooks)(nil).Find(j, "map") != nil || (*wake.Hooks)(nil).Len() != 0 {
		t.Error("wrong hook")
	}
	if _, err := wake.Load(filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there")
	}
	if _, err := wake.Load(write("hooks2.json", `{"hooks":[{"name":"a","url":"http://a/","secret":"file:none"}]}`)); err == nil || !strings.Contains(err.Error(), "hook 1") {
		t.Errorf("a secret that is not there: %v", err)
	}
	write("empty", "\n")
	for ref, want := range map[string]string{"env:WAKE_TEST_UNSET": "env:WAKE_TEST_UNSET is not set", "file:empty": "empty is empty"} {
		if _, err := wake.Load(write("hooks3.json", `{"hooks":[{"name":"a","url":"http://a/","secret":"`+ref+`"}]}`)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", ref, err, want)
		}
	}
	write("long", strings.Repeat("x", 1<<20+1))
	if _, err := wake.Load(filepath.Join(dir, "long")); err == nil || !strings.Contains(err.Error(), "longer") {
		t.Errorf("a file that is too long: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	hook := func(url string) string {
		return `{"hooks":[{"name":"a","url":"` + url + `","secret":"` + vectorSecret + `"}]}`
	}
	for in, want := range map[string]string{
		"":                                   "hooks",
		"[]":                                 "hooks",
		hook("http://a/") + "{}":             "follows",
		`{"hook":[]}`:                        "unknown field",
		`{"hooks":[{}]}`:                     "name",
		`{"hooks":[{"name":"[a"}]}`:          "pattern",
		`{"hooks":[{"name":"a","job":"x"}]}`: "job",
		`{"hooks":[{"name":"a","url":"http://a/"}]}`:                                       "0 secrets",
		`{"hooks":[{"name":"a","url":"http://a/","secret":"x"}]}`:                          "openssl",
		`{"hooks":[{"name":"a","url":"http://a/","timeout":"1h"}]}`:                        "at most 15m",
		`{"hooks":[{"name":"a","url":"http://a/","rate":-1}]}`:                             "rate",
		`{"hooks":[{"name":"a","url":"http://a/","start":"-1s"}]}`:                         "start",
		`{"hooks":[{"name":"a","url":"http://a/","secret":"` + vectorSecret + `","x":1}]}`: "unknown field",
		hook("ftp://a/"):                              "http://",
		hook("a"):                                     "http://",
		hook("http:///x"):                             "host",
		hook("http://me:pw@a/"):                       "user",
		hook("http://a/#x"):                           "fragment",
		hook("http://{name}/"):                        "host",
		hook("http://{name}.example/"):                "host",
		hook("http://a:{name}/"):                      "http://",
		hook("{name}://a/"):                           "http://",
		hook("http://a/{caller}"):                     "braces",
		hook("http://a/?x={"):                         "braces",
		hook("http://a/" + strings.Repeat("x", 2048)): "http://",
	} {
		if h, err := wake.Parse([]byte(in), literal); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "MfKQ") {
			t.Errorf("%.100s: %v, %v; want something about %q", in, h, err, want)
		}
	}
}

func FuzzParseHooks(f *testing.F) {
	j := job.NewKey().ID()
	for _, b := range hostile.Of(
		[]byte(`{"hooks":[{"job":"*","name":"reduce-*","url":"https://fn.example/{job}/{name}?x={name}","secret":"`+vectorSecret+`","timeout":"2s","start":"1m"}]}`),
		[]byte(`{"hooks":[{"name":"a","url":"http://{name}.example/","secret":"`+vectorSecret+`"}]}`),
		[]byte(`{}`),
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := wake.Parse(data, literal)
		if err != nil {
			return
		}
		// Whatever a member of the job calls itself, the same host is called.
		for _, name := range []string{"a", "reduce-0", "127-0-0-1", "-", "_x"} {
			one := h.Find(j, name)
			if one == nil {
				continue
			}
			u, err := url.Parse(one.Target(wake.Data{Job: j, Name: name}))
			if err != nil || u.Host != one.Host() || u.User != nil || one.Timeout() <= 0 || one.Start() <= 0 {
				t.Fatalf("%q: %v, %v", name, u, err)
			}
		}
	})
}
