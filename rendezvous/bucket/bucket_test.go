package bucket_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/rendezvous/bucket"
)

func Example() {
	fmt.Println(bucket.Stream("b"))
	fmt.Println(bucket.Object("b", "job/in/x.1"))
	fmt.Println(bucket.Filter("b", "job/in/x"))
	fmt.Println(bucket.Chunk("b", "ID", 7))
	// Output:
	// FNW_b
	// fnw.b.o.job.in.x%1
	// fnw.b.o.job.in.>
	// fnw.b.c.ID.7
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"b", "B-_9", strings.Repeat("x", 64)} {
		if err := bucket.CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "a.b", "*", ">", "a b", "ä", strings.Repeat("x", 65)} {
		if bucket.CheckName(name) == nil {
			t.Errorf("%q passed", name)
		}
	}
}

// FuzzKey holds that subjects are one to one with keys, have no token that NATS would understand as something else, and that
// a filter matches those that it should.
func FuzzKey(f *testing.F) {
	for _, pair := range [][2]string{{"a", "a/b"}, {"a.b", "a/b"}, {"..a/b=", "..a/"}, {"no%key", "no key"}, {"job/in/x/1", "job/in/"}} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, key, other string) {
		if back, err := bucket.Key(key); err == nil && store.CheckKey(back) == nil && bucket.Tokens(back) != key {
			t.Errorf("%q is taken for the subject of %q", key, back)
		}
		if store.CheckKey(key) != nil {
			return
		}
		tokens := bucket.Tokens(key)
		if back, err := bucket.Key(tokens); err != nil || back != key {
			t.Errorf("%q becomes %q, %v", key, back, err)
		}
		for token := range strings.SplitSeq(tokens, ".") {
			if token == "" || strings.ContainsAny(token, "*> \t\r\n") {
				t.Errorf("%q: %q", key, tokens)
			}
		}
		if store.CheckKey(other) == nil && other != key && bucket.Tokens(other) == tokens {
			t.Errorf("%q and %q: %q", key, other, tokens)
		}
		if start := strings.TrimSuffix(bucket.Filter("b", other), ">"); strings.HasPrefix(key, other) && !strings.HasPrefix(bucket.Object("b", key), start) {
			t.Errorf("%q is not matched by the filter for %q", key, other)
		}
	})
}
