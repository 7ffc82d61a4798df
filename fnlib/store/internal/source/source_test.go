package source_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/fnwire/fnwire/fnlib/store/internal/source"
)

func Example() {
	r := source.New(context.Background(), strings.NewReader("state"))
	buf := make([]byte, 4)
	for range 3 {
		n, err := r.Fill(buf)
		fmt.Printf("%q %v\n", buf[:n], err)
	}
	// Output:
	// "stat" <nil>
	// "e" <nil>
	// "" <nil>
}

func TestFailures(t *testing.T) {
	for _, cause := range []error{io.ErrUnexpectedEOF, fmt.Errorf("broken: %w", io.EOF), errors.ErrUnsupported} {
		r := source.New(t.Context(), io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(cause)))
		n, err := r.Fill(make([]byte, 10))
		var own *source.Error
		if n != 3 || !errors.Is(err, cause) || !errors.As(err, &own) {
			t.Errorf("%v: %d, %v", cause, n, err)
		}
	}
}

func TestContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := source.New(ctx, io.MultiReader(strings.NewReader("abc"), readerFunc(func(p []byte) (int, error) {
		cancel()
		return copy(p, "def"), nil
	})))
	if n, err := r.Fill(make([]byte, 10)); n != 3 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d, %v", n, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
