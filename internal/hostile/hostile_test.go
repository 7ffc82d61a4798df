package hostile_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/fnwire/fnwire/internal/hostile"
)

func ExampleOf() {
	for _, b := range hostile.Of([]byte("\x20\x00\x02hi")) {
		fmt.Printf("%q\n", b)
	}
	// Output:
	// ""
	// " \x00\x02hi"
	// " "
	// " \x00"
	// " \x00\x02h"
	// " \x00\x02hi\x00"
	// " \x00\x02hi \x00\x02hi"
	// "\xdf\x00\x02hi"
	// " \x00\x02hh"
	// " \xff\xff\xff\xff"
	// "\x00\x00\x00\x00\x00"
}

func TestGoodMessagesStay(t *testing.T) {
	m := []byte("message")
	if all := hostile.Of(m, nil, []byte("x")); len(all) != 1+10+1+1 || !bytes.Equal(m, []byte("message")) {
		t.Errorf("%d seeds of %q", len(all), m)
	}
	if s := hostile.Strings("ab"); s[0] != "ab" || len(s) != 10+6 {
		t.Errorf("%q", s)
	}
}
