package cli_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/faas"
	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
)

// invoke is a small program to run in the lab: it invokes a function and prints the answer.
func invoke(url, payload string) error {
	resp, err := http.Post(url, "application/json", strings.NewReader(payload))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Printf("%d %s\n", resp.StatusCode, body)
	return err
}

func TestFaas(t *testing.T) {
	dir, err := os.MkdirTemp("", "functions")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // for all users
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "lambda.norpc", "-ldflags=-s -w", "-o", filepath.Join(dir, "echo", "bootstrap"), "../faas/echo")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	everyUser(t, func(t *testing.T, u user) {
		records := filepath.Join(u.run, "records")
		for _, c := range []struct {
			args []string
			code int
			says string
		}{
			{[]string{"faas"}, 2, "--functions"},
			{[]string{"faas", "--functions", u.run}, 1, "no functions"},
			{[]string{"faas", "--functions", dir, "--nat", "brick"}, 2, "unknown NAT kind"},
			{[]string{"faas", "--functions", dir, "--hosts", "0"}, 2, "--hosts"},
			{[]string{"faas", "--functions", dir, "--hosts", "1000"}, 2, "at most 200"},
			{[]string{"faas", "--functions", dir, "--log-level", "loud"}, 2, "loud"},
		} {
			if _, stderr, code := u.types("", c.args...); code != c.code || !strings.Contains(stderr, c.says) {
				t.Errorf("%v: %d, %s", c.args, code, stderr)
			}
		}
		cmd := u.command("faas", "--functions", dir, "--nat", "symmetric,port-restricted", "--hosts", "2", "--json", "--records", records)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		late := time.AfterFunc(40*time.Second, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		said := json.NewDecoder(bufio.NewReader(stdout))
		var info struct {
			Endpoint  string
			Functions []string
			Hosts     []lab.HostInfo
		}
		if err := said.Decode(&info); err != nil {
			_ = cmd.Wait()
			if strings.Contains(stderr.String(), lab.ErrUnavailable.Error()) {
				labtest.Unavailable(t, fmt.Errorf("%w: %s", lab.ErrUnavailable, stderr.String()))
			}
			t.Fatalf("it tells nothing: %v, %s", err, stderr.String())
		}
		if len(info.Hosts) != 3 || info.Hosts[2].NAT != lab.PortRestricted || len(info.Functions) != 1 {
			t.Errorf("%+v", info)
		}
		for range 2 {
			out, errs, code := u.types("", "lab", "exec", "public", "/proc/self/exe", "invoke", info.Endpoint+"/2015-03-31/functions/echo/invocations", `{"echo": "hello"}`)
			if code != 0 || !strings.HasPrefix(out, "200 ") || !strings.Contains(out, `"echo":"hello"`) {
				t.Errorf("invoke: %d, %s%s", code, out, errs)
			}
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		var total struct{ Totals map[string]faas.Totals }
		err = said.Decode(&total)
		if u := total.Totals["echo"]; err != nil || u.Requests != 2 || u.Cold != 1 || u.GBSeconds <= 0 {
			t.Errorf("%+v, %v", total, err)
		}
		if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
			t.Errorf("after Ctrl-C: %v, %s", err, stderr.String())
		}
		checkRecords(t, records)
	})
}

// checkRecords looks for a cold start, a thawed one and the end of the instance, and removes the file.
func checkRecords(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err := errors.Join(err, os.Remove(file)); err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(b)) {
		var r faas.Record
		switch err := json.Unmarshal([]byte(line), &r); {
		case err != nil:
			t.Errorf("%s: %v", line, err)
		case r.Invocation != nil:
			found = append(found, string(r.Invocation.Start))
		case r.Instance != nil:
			found = append(found, r.Instance.Why)
		}
	}
	if got := fmt.Sprint(found); got != "[cold thawed closed]" {
		t.Errorf("records %s: %s", got, b)
	}
}
