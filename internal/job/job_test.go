package job_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/job"
)

func Example() {
	key := job.NewKey()
	fmt.Println(key) // never the secret
	id := key.ID()
	fmt.Println(len(id.String()), job.CheckName("map-3"), job.CheckName("no.dots"))
	// Output:
	// job key (hidden)
	// 52 <nil> name "no.dots": only letters, digits, '-' and '_' are allowed
}

func fixed(t testing.TB) job.Key {
	t.Helper()
	k, err := job.ParseKey("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// What derives from a key is part of the protocol: two versions must agree on it.
func TestGolden(t *testing.T) {
	k := fixed(t)
	derived, mac := k.Derive("job signature"), k.MAC("x", []byte("ab"), []byte("c"))
	for name, c := range map[string][2]string{
		"ID":     {k.ID().String(), "pzpzcpthlzqtkucs4eatz6r43ej4zmpcythci3s3eo5q5hwxnq6a"},
		"Derive": {hex.EncodeToString(derived[:8]), "938e66c3210cf8c3"},
		"MAC":    {hex.EncodeToString(mac[:8]), "67258ef5cccfe5dc"},
	} {
		if c[0] != c[1] {
			t.Errorf("%s: %s, want %s", name, c[0], c[1])
		}
	}
}

func TestKey(t *testing.T) {
	k := job.NewKey()
	for _, s := range []string{k.Encode(), " " + k.Encode() + "\n", strings.TrimRight(k.Encode(), "="), strings.NewReplacer("+", "-", "/", "_").Replace(k.Encode())} {
		if got, err := job.ParseKey(s); err != nil || got != k {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", "secret", k.Encode()[:40], k.Encode() + "AAAA"} {
		if _, err := job.ParseKey(s); err == nil {
			t.Errorf("%q passed for a key", s)
		} else if s != "" && strings.Contains(err.Error(), s) {
			t.Errorf("the error repeats the key: %v", err)
		}
	}
	for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%v %+v %#v %s", k, k, k, k)} {
		if strings.Contains(s, k.Encode()) {
			t.Errorf("printed as %s", s)
		}
	}
}

func TestMAC(t *testing.T) {
	k := fixed(t)
	a, b, c := k.MAC("x", []byte("ab"), []byte("c")), k.MAC("x", []byte("a"), []byte("bc")), k.MAC("y", []byte("ab"), []byte("c"))
	if a == b || a == c {
		t.Error("parts or purposes run together")
	}
}

func TestID(t *testing.T) {
	id := fixed(t).ID()
	got, err := job.ParseID(id.String())
	if err != nil || got != id {
		t.Errorf("%v, %v", got, err)
	}
	for _, s := range []string{"", "x", strings.ToUpper(id.String()), id.String() + "a"} {
		if _, err := job.ParseID(s); err == nil {
			t.Errorf("%q passed for an ID", s)
		}
	}
	if id.Verify([]byte("m"), []byte("short")) {
		t.Error("a short signature passed")
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range hostile.Strings(fixed(f).ID().String()) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := job.ParseID(s); err == nil && id.String() != s {
			t.Errorf("%q comes back as %q", s, id)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	for _, s := range hostile.Strings(fixed(f).Encode()) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := job.ParseKey(s)
		if err != nil {
			return
		}
		if again, err := job.ParseKey(k.Encode()); err != nil || again != k {
			t.Errorf("%q does not come back", s)
		}
	})
}

func TestCheckName(t *testing.T) {
	for _, ok := range []string{"a", "map-3", "A_b-9", strings.Repeat("x", job.MaxName)} {
		if err := job.CheckName(ok); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "a.b", "a b", "*", ">", "ä", "a/b", strings.Repeat("x", job.MaxName+1)} {
		if job.CheckName(bad) == nil {
			t.Errorf("%q passed", bad)
		}
	}
	if bytes.Contains([]byte(job.CheckName(strings.Repeat("x", 5000)).Error()), bytes.Repeat([]byte("x"), 100)) {
		t.Error("the error repeats a huge name")
	}
}
