package store_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/fnlib/store"
)

func Example() {
	fmt.Println(store.CheckKey("in/map-3/7f"))
	fmt.Println(store.CheckKey("in/../secret"))
	// Output:
	// <nil>
	// store: key "in/../secret" has an empty, "." or ".." segment
}

func TestCheckKey(t *testing.T) {
	for _, key := range []string{"a", "a/b", "A-_.=9/x", strings.Repeat("k", store.MaxKey)} {
		if err := store.CheckKey(key); err != nil {
			t.Error(err)
		}
	}
	for _, key := range []string{"", "/", "a/", "/a", "a//b", ".", "..", "a/./b", "a b", "a\x00", "ä", "a\\b", strings.Repeat("k", store.MaxKey+1)} {
		if store.CheckKey(key) == nil {
			t.Errorf("%q passed", key)
		}
	}
}
