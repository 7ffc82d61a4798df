package faas_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// envFunction makes this test binary a function that speaks the Runtime API by itself.
const envFunction = "FNWIRE_TEST_FUNCTION"

// envDaemon makes it a process that such a function leaves behind, if it can.
const envDaemon = "FNWIRE_TEST_DAEMON"

// order is an event of that function: what it is to do.
type order struct {
	Do   string
	Wait string // a socket; it answers when the connection that it makes there is closed
}

// report is its response.
type report struct {
	PID   int
	Count int // of its events
	Addrs string
	API   string
	Files int // in /tmp, of those that it makes
}

func call(method, path string, body []byte) (http.Header, []byte) {
	req, err := http.NewRequest(method, "http://"+os.Getenv("AWS_LAMBDA_RUNTIME_API")+"/2018-06-01/runtime"+path, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(err)
	}
	return resp.Header, b
}

// hold waits until the other end of a connection is closed.
func hold(socket string) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		panic(err)
	}
	_, _ = io.Copy(io.Discard, conn)
}

// leaveFile makes a file in /tmp, and returns how many it finds there.
func leaveFile() int {
	f, err := os.CreateTemp("/tmp", "of-a-function-*")
	if err != nil {
		panic(err)
	}
	_ = f.Close()
	found, err := filepath.Glob("/tmp/of-a-function-*")
	if err != nil {
		panic(err)
	}
	return len(found)
}

// runFunction is the process of an instance.
func runFunction() {
	if wait := os.Getenv(envDaemon); wait != "" {
		hold(wait)
		os.Exit(0)
	}
	fmt.Println("init")
	if os.Getenv(envFunction) == "broken" {
		call("POST", "/init/error", []byte(`{"errorMessage":"no disk","errorType":"Init.Disk"}`))
		os.Exit(3)
	}
	for n := 1; ; n++ {
		h, body := call("GET", "/invocation/next", nil)
		var o order
		if err := json.Unmarshal(body, &o); err != nil {
			panic(err)
		}
		path := "/invocation/" + h.Get("Lambda-Runtime-Aws-Request-Id")
		if o.Wait != "" && o.Do != "daemon" {
			hold(o.Wait)
		}
		switch o.Do {
		case "daemon": // which leaves the process group
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), envDaemon+"="+o.Wait)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := cmd.Start(); err != nil {
				panic(err)
			}
		case "exit":
			os.Exit(7)
		case "hang":
			time.Sleep(time.Hour)
		case "error":
			call("POST", path+"/error", []byte(`{"errorMessage":"no","errorType":"Own"}`))
			continue
		case "print":
			fmt.Println(strings.Repeat("x", 5000))
			fmt.Print("no newline")
		}
		files := 0
		if o.Do == "temp" {
			files = leaveFile()
		}
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			panic(err)
		}
		answer, err := json.Marshal(report{os.Getpid(), n, fmt.Sprint(addrs), os.Getenv("AWS_LAMBDA_RUNTIME_API"), files})
		if err != nil {
			panic(err)
		}
		call("POST", path+"/response", answer)
	}
}
