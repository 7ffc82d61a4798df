package lambdaapi

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// The headers of the Runtime API and the Extensions API.
const (
	headerID        = "Lambda-Runtime-Aws-Request-Id"
	headerDeadline  = "Lambda-Runtime-Deadline-Ms"
	headerARN       = "Lambda-Runtime-Invoked-Function-Arn"
	headerTrace     = "Lambda-Runtime-Trace-Id"
	headerClient    = "Lambda-Runtime-Client-Context"
	headerErrorType = "Lambda-Runtime-Function-Error-Type"
	headerErrorBody = "Lambda-Runtime-Function-Error-Body"
	headerExtName   = "Lambda-Extension-Name"
	headerExtID     = "Lambda-Extension-Identifier"
)

// maxDrain is how much of a response that is too long is read, so that its sender reads the answer.
const maxDrain = 64 << 20

func (i *Instance) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", i.serveNext)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", i.serveResponse)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error", i.serveError)
	mux.HandleFunc("POST /2018-06-01/runtime/init/error", i.serveInitError)
	mux.HandleFunc("POST /2020-01-01/extension/register", i.serveRegister)
	mux.HandleFunc("GET /2020-01-01/extension/event/next", i.serveExtension)
	return mux
}

// refusal is how the API tells that it does not do what was asked, and how errors of functions look.
type refusal struct {
	Message string `json:"errorMessage"`
	Type    string `json:"errorType"`
}

func refuse(w http.ResponseWriter, status int, kind, format string, args ...any) {
	answer(w, status, refusal{fmt.Sprintf(format, args...), kind})
}

func accept(w http.ResponseWriter) { answer(w, http.StatusAccepted, map[string]string{"status": "OK"}) }

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the process may be gone
}

// serveNext gives the process the event at hand, or waits for one: then the instance may be frozen.
func (i *Instance) serveNext(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	e := i.event
	if e != nil && !e.given.IsZero() {
		if !e.answered {
			i.mu.Unlock()
			refuse(w, http.StatusForbidden, "InvalidStateTransition", "event %s is not answered yet", e.ID)
			return
		}
		i.event, i.last = nil, e
	}
	i.initOver()
	i.polls++
	i.update()
	for i.event == nil || !i.event.given.IsZero() {
		if i.await(r.Context()) != nil {
			i.polls--
			i.mu.Unlock()
			return
		}
	}
	i.polls--
	e = i.event
	i.give(e)
	i.update()
	i.mu.Unlock()
	h := w.Header()
	h.Set(headerID, e.ID)
	h.Set(headerDeadline, strconv.FormatInt(e.deadline.UnixMilli(), 10))
	h.Set(headerARN, e.arn)
	h.Set(headerTrace, e.TraceID)
	if e.ClientContext != "" {
		h.Set(headerClient, e.ClientContext)
	}
	h.Set("Content-Type", "application/json")
	_, _ = w.Write(e.Payload) // the process may be gone
}

// answering returns the event of a request that tells what became of it, or refuses the request.
func (i *Instance) answering(w http.ResponseWriter, r *http.Request) *event {
	i.mu.Lock()
	defer i.mu.Unlock()
	e := i.event
	if e == nil || e.given.IsZero() || e.answered || e.ID != r.PathValue("id") {
		refuse(w, http.StatusBadRequest, "InvalidRequestID", "Invalid request ID")
		return nil
	}
	e.answered = true
	return e
}

func (i *Instance) serveResponse(w http.ResponseWriter, r *http.Request) {
	e := i.answering(w, r)
	if e == nil {
		return
	}
	body, ok := read(w, r, e)
	if !ok {
		return
	}
	res := Result{Payload: body, ContentType: r.Header.Get("Content-Type")}
	if kind := r.Trailer.Get(headerErrorType); kind != "" { // a stream that broke off
		told, _ := base64.StdEncoding.DecodeString(r.Trailer.Get(headerErrorBody)) // what cannot be read is empty
		res = Result{Payload: told, FunctionError: kind}
	}
	e.end(res)
	accept(w)
}

func (i *Instance) serveError(w http.ResponseWriter, r *http.Request) {
	e := i.answering(w, r)
	if e == nil {
		return
	}
	body, ok := read(w, r, e)
	if !ok {
		return
	}
	e.end(errorResult(r, body))
	accept(w)
}

// errorResult is the error that a process tells.
func errorResult(r *http.Request, body []byte) Result {
	var told refusal
	_ = json.Unmarshal(body, &told) // what cannot be read has no type
	return Result{Payload: body, FunctionError: cmp.Or(r.Header.Get(headerErrorType), told.Type, "Unhandled")}
}

// read reads what the process says of an event. If that is too long or breaks off, both are told.
func read(w http.ResponseWriter, r *http.Request, e *event) (body []byte, ok bool) {
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxPayload+1))
	switch {
	case err != nil:
		e.fail("Runtime.TruncatedResponse", err.Error())
		refuse(w, http.StatusBadRequest, "TruncatedHTTPRequest", "HTTP request detected as truncated")
	case len(body) > MaxPayload:
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain) // the end, as a rule
		e.fail("Function.ResponseSizeTooLarge", fmt.Sprintf("Response payload size exceeded maximum allowed payload size (%d bytes).", MaxPayload))
		refuse(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "Exceeded maximum allowed payload size (%d bytes).", MaxPayload)
	default:
		return body, true
	}
	return nil, false
}

func (i *Instance) serveInitError(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxPayload))
	i.mu.Lock()
	defer i.mu.Unlock()
	if err != nil || i.inited {
		refuse(w, http.StatusForbidden, "InvalidStateTransition", "init is over")
		return
	}
	res := errorResult(r, body)
	i.initError = &res
	accept(w)
}
