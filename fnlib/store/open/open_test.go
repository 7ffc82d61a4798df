package open_test

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/open"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func Example() {
	_, err := open.URL(context.Background(), "ftp://host/states")
	fmt.Println(strings.HasPrefix(err.Error(), "store: ftp://host/states has no scheme that is known; want a URL like file:///"))
	// Output:
	// true
}

func TestFile(t *testing.T) {
	raw := "file://" + filepath.ToSlash(t.TempDir())
	s, err := open.URL(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), "k", strings.NewReader("state"), store.PutOptions{}); err != nil {
		t.Error(err)
	}
	if s.String() != raw {
		t.Errorf("%s opens %s", raw, s)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestDriverFails holds that what no driver opens is nil, and that its own error comes through.
func TestDriverFails(t *testing.T) {
	for _, raw := range []string{"file:relative", "", "/var/lib", "nosuch://user:secret@host", "://", "%zz"} {
		s, err := open.URL(t.Context(), raw)
		if s != nil || err == nil || !strings.HasPrefix(err.Error(), "store: ") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v, %v", raw, s, err)
		}
	}
}

func TestExamples(t *testing.T) {
	seen := map[string]bool{}
	for _, raw := range open.Examples() {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme == "" || seen[u.Scheme] {
			t.Errorf("%q: %v", raw, err)
			continue
		}
		seen[u.Scheme] = true
	}
}
