package lambdaapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/fnwire/fnwire/experiments/lambdaapi"
)

// envFunction makes this test binary a function that speaks the Runtime API by itself.
const envFunction = "FNWIRE_TEST_FUNCTION"

// order is an event of that function: what it is to do.
type order struct{ Do string }

// report is its response.
type report struct {
	PID     int
	Headers http.Header
	Env     []string
	Told    string
}

type runtimeClient struct{ base string }

func (c runtimeClient) do(method, path string, header http.Header, body []byte) (int, http.Header, []byte) {
	req, err := http.NewRequest(method, "http://"+c.base+path, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	for k, v := range header {
		req.Header[k] = v
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
	return resp.StatusCode, resp.Header, b
}

func (c runtimeClient) register(events string) (status int, id string) {
	status, h, _ := c.do("POST", "/2020-01-01/extension/register", http.Header{"Lambda-Extension-Name": {"inner"}}, []byte(`{"events":[`+events+`]}`))
	return status, h.Get("Lambda-Extension-Identifier")
}

// function is the process of an instance. Its kind says what it does before its first event.
func function(kind string) {
	c := runtimeClient{os.Getenv("AWS_LAMBDA_RUNTIME_API")}
	switch kind {
	case "dies":
		_, _, _ = c.do("POST", "/2018-06-01/runtime/init/error", nil, []byte(`{"errorMessage":"no disk","errorType":"Init.Disk"}`))
		os.Exit(3)
	case "sleeps":
		select {}
	case "extension":
		if status, _ := c.register(`"SHUTDOWN"`); status != http.StatusForbidden {
			panic("registered for SHUTDOWN")
		}
		_, id := c.register(`"INVOKE"`)
		go func() {
			for {
				_, _, b := c.do("GET", "/2020-01-01/extension/event/next", http.Header{"Lambda-Extension-Identifier": {id}}, nil)
				fmt.Printf("extension %s\n", b)
			}
		}()
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		go func() {
			<-term
			fmt.Println("terminated")
			os.Exit(0)
		}()
	}
	for {
		_, h, body := c.do("GET", "/2018-06-01/runtime/invocation/next", nil, nil)
		var o order
		if err := json.Unmarshal(body, &o); err != nil {
			panic(err)
		}
		r := report{PID: os.Getpid(), Headers: h, Env: os.Environ()}
		c.obey(o, r, "/2018-06-01/runtime/invocation/"+h.Get("Lambda-Runtime-Aws-Request-Id"))
	}
}

func (c runtimeClient) obey(o order, r report, path string) {
	body := []byte(nil)
	switch o.Do {
	case "error":
		_, _, _ = c.do("POST", path+"/error", nil, []byte(`{"errorMessage":"no","errorType":"Own"}`))
		return
	case "exit":
		os.Exit(7)
	case "hang":
		select {}
	case "large":
		body = make([]byte, lambdaapi.MaxPayload+1)
	case "break":
		c.breakOff(path)
		return
	case "late":
		status, _ := c.register("")
		next, _, _ := c.do("GET", "/2018-06-01/runtime/invocation/next", nil, nil)
		other, _, _ := c.do("POST", "/2018-06-01/runtime/invocation/other/response", nil, nil)
		initial, _, _ := c.do("POST", "/2018-06-01/runtime/init/error", nil, nil)
		unknown, _, _ := c.do("GET", "/2020-01-01/extension/event/next", nil, nil)
		r.Told = fmt.Sprint(status, next, other, initial, unknown)
	}
	if body == nil {
		body, _ = json.Marshal(r)
	}
	status, _, said := c.do("POST", path+"/response", http.Header{"Content-Type": {"application/json"}}, body)
	if status != http.StatusAccepted {
		fmt.Printf("response %d %s", status, said)
	}
	if o.Do == "twice" {
		status, _, _ = c.do("POST", path+"/response", nil, body)
		fmt.Printf("again %d\n", status)
	}
}

// breakOff sends a response that ends in an error, as aws-lambda-go does when a reader fails.
func (c runtimeClient) breakOff(path string) {
	req, err := http.NewRequest("POST", "http://"+c.base+path+"/response", io.MultiReader(strings.NewReader("half")))
	if err != nil {
		panic(err)
	}
	req.Trailer = http.Header{
		"Lambda-Runtime-Function-Error-Type": {"Reader"}, "Lambda-Runtime-Function-Error-Body": {"eyJhIjoxfQ=="},
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	_ = resp.Body.Close()
}
