package leaf_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/internal/leaf"
	"github.com/fnwire/fnwire/internal/hostile"
)

func Example() {
	fmt.Println(leaf.Encode("job/state"))
	fmt.Println(leaf.Decode("job/state!"))
	fmt.Println(leaf.Decode("job/state"))
	// Output:
	// job/state!
	// job/state true
	//  false
}

// FuzzKey holds that paths are one to one with keys, that no name in one is too long for a file system, and that no path is
// a directory in another.
func FuzzKey(f *testing.F) {
	long := strings.Repeat("k", 200)
	for _, pair := range [][2]string{{"a", "a/b"}, {"a", "b"}, {long, long + "k"}, {long + "/k", long + "k"}, {"a" + long + "!", long + long + "/" + long}} {
		f.Add(pair[0], pair[1])
	}
	for _, s := range hostile.Strings("a/../b!", "a//b") {
		f.Add(s, "a")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if key, ok := leaf.Decode(a); ok && leaf.Encode(key) != a {
			t.Errorf("%q is taken for the path of %q", a, key)
		}
		if store.CheckKey(a) != nil || store.CheckKey(b) != nil {
			return
		}
		pa, pb := leaf.Encode(a), leaf.Encode(b)
		if key, ok := leaf.Decode(pa); !ok || key != a {
			t.Errorf("%q becomes %q, %v", a, key, ok)
		}
		for name := range strings.SplitSeq(pa, "/") {
			if len(name) > 255 || name == "" || name == "." || name == ".." {
				t.Errorf("%q has the name %q", pa, name)
			}
		}
		if a != b && (pa == pb || strings.HasPrefix(pb, pa+"/")) {
			t.Errorf("%q and %q: %q and %q", a, b, pa, pb)
		}
		if strings.HasPrefix(b, a) != strings.HasPrefix(pb, leaf.Prefix(a)) {
			t.Errorf("%q and %q: prefix %q, path %q", a, b, leaf.Prefix(a), pb)
		}
	})
}
