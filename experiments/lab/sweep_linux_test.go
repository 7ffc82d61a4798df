package lab_test

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
)

// Sweep ends what runs on a host, also who has left its process group, and nothing else.
func TestSweep(t *testing.T) {
	l := labtest.New(t, lab.Host{Name: "a"}, lab.Host{Name: "b"})
	ends := map[string]*os.File{}
	for _, host := range []string{"a", "b"} {
		r, w, err := os.Pipe() // which the parent and its child hold open
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		cmd := helper("parent")
		cmd.Stdout, cmd.ExtraFiles = w, []*os.File{w}
		_, err = l.Start(t.Context(), host, cmd)
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(make([]byte, 16)); err != nil { // it has its child
			t.Fatal(err)
		}
		ends[host] = r
	}
	if err := l.Sweep("a"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(ends["a"].SetReadDeadline(time.Now().Add(patience)), ends["b"].SetReadDeadline(time.Now().Add(moment))); err != nil {
		t.Fatal(err)
	}
	if _, err := ends["a"].Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a process on the host lives: %v", err)
	}
	if _, err := ends["b"].Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("those on another have ended: %v", err)
	}
	if err := l.Sweep("c"); err == nil {
		t.Error("swept a host that does not exist")
	}
}
