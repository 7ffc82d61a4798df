package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fnwire/fnwire/internal/cli"
)

// openTerminal returns both ends of a pseudo-terminal of 100 columns.
func openTerminal(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(screen.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 100})
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return screen, tty
}

// TestProgress holds that a terminal shows what is waited for and how far the transfer is, and that
// nothing of it remains on the screen.
func TestProgress(t *testing.T) {
	env, _ := startDev(t)
	var shown output
	screen, tty := openTerminal(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(&shown, screen) // ends with EIO when the last writer has closed the terminal
	}()
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := env.startWith(t, []string{"send", "--to", "b", "--key", "the-key", "--path", "relay", "-"}, func(cmd *exec.Cmd) {
		cmd.Stdin, cmd.Stderr = pr, tty
	})
	_ = pr.Close() // the process has its own
	s.await(&shown, "waiting for b")
	r := env.startReceive(t, "b", "--out", "-")
	for range 4 {
		if _, err := pw.Write(pattern(300 << 10)); err != nil {
			t.Fatal(err)
		}
	}
	s.await(&shown, "the-key to b")
	s.await(&shown, "iB/s")
	_ = pw.Close() // for writing only
	s.want(cli.ExitOK)
	r.want(cli.ExitOK)
	_ = tty.Close() // so that the reader ends
	<-done
	text := shown.String()
	if !strings.Contains(text, "(relay)") {
		t.Errorf("no path in %q", text)
	}
	last := text[strings.LastIndex(text, "\r")+1:]
	before := strings.TrimRight(text, "\r")
	before = before[strings.LastIndex(before, "\r")+1:]
	if strings.TrimSpace(last) != "" || strings.TrimSpace(strings.ReplaceAll(before, "\x1b[2K", "")) != "" {
		t.Errorf("the screen ends with %q, %q", before, last)
	}
	if strings.Contains(r.err.String(), "the-key from") && strings.Contains(r.err.String(), "iB/s ") {
		t.Error("progress on something that is no terminal")
	}
}
