package faas

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	maxContext = 3583 // bytes of X-Amz-Client-Context
	maxDrain   = 16 << 20
)

// Serve answers the Invoke API on l until ctx ends, and then closes the platform.
func (p *Platform) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	err := server.Serve(l)
	if ctx.Err() != nil {
		err = nil
	} else {
		err = fmt.Errorf("faas: serve: %w", err)
	}
	return errors.Join(err, p.Close())
}

// ServeHTTP is Lambda's Invoke API.
func (p *Platform) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.mux.ServeHTTP(w, r) }

func (p *Platform) routes() {
	p.mux.HandleFunc("POST /2015-03-31/functions/{name}/invocations", p.serveInvoke)
	p.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "UnknownOperationException", fmt.Sprintf("%s %.100q: only Invoke is here", r.Method, r.URL.Path))
	})
}

// refusal is the body of an error.
type refusal struct {
	Type    string `json:"Type"` // User or Service
	Message string `json:"message"`
	Reason  string `json:"Reason,omitempty"`
}

func refuse(w http.ResponseWriter, status int, kind, msg string) {
	deny(w, status, kind, refusal{Message: msg})
}

func deny(w http.ResponseWriter, status int, kind string, body refusal) {
	if body.Type = "User"; status >= http.StatusInternalServerError {
		body.Type = "Service"
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Amzn-ErrorType", kind)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}

func (p *Platform) serveInvoke(w http.ResponseWriter, r *http.Request) {
	name, err := functionName(r.PathValue("name"), r.URL.Query().Get("Qualifier"))
	if err != nil {
		refuse(w, http.StatusNotFound, "ResourceNotFoundException", err.Error())
		return
	}
	req := Request{Function: name, TraceID: r.Header.Get("X-Amzn-Trace-Id"), Tail: r.Header.Get("X-Amz-Log-Type") == "Tail"}
	async, dry, limit := false, false, MaxSync
	switch kind := r.Header.Get("X-Amz-Invocation-Type"); kind {
	case "", "RequestResponse":
	case "DryRun":
		dry = true
	case "Event":
		async, limit = true, MaxAsync
	default:
		refuse(w, http.StatusBadRequest, "InvalidParameterValueException", fmt.Sprintf("InvocationType %.40q: want RequestResponse, Event or DryRun", kind))
		return
	}
	if req.Payload, err = io.ReadAll(io.LimitReader(r.Body, int64(limit)+1)); err != nil {
		refuse(w, http.StatusBadRequest, "InvalidRequestContentException", "the request broke off")
		return
	}
	if req.ClientContext, err = clientContext(r.Header.Get("X-Amz-Client-Context")); err != nil {
		refuse(w, http.StatusBadRequest, "InvalidRequestContentException", "Client context: "+err.Error())
		return
	}
	switch {
	case dry:
		if _, err = p.accept(&req, limit); err == nil {
			w.WriteHeader(http.StatusNoContent)
		}
	case async:
		var id string
		if id, err = p.Enqueue(req); err == nil {
			w.Header().Set("X-Amzn-Requestid", id)
			w.WriteHeader(http.StatusAccepted)
		}
	default:
		var resp Response
		if resp, err = p.Invoke(r.Context(), req); err == nil {
			respond(w, resp, req.Tail)
		}
	}
	if errors.Is(err, ErrTooLarge) {
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain) // so that the client, which sends first, reads the answer
	}
	if err != nil {
		denyInvoke(w, limit, err)
	}
}

func respond(w http.ResponseWriter, resp Response, tail bool) {
	h := w.Header()
	h.Set("X-Amzn-Requestid", resp.ID)
	h.Set("X-Amz-Executed-Version", "$LATEST")
	h.Set("Content-Type", "application/json")
	if tail {
		h.Set("X-Amz-Log-Result", base64.StdEncoding.EncodeToString(resp.Log))
	}
	if resp.FunctionError != "" {
		h.Set("X-Amz-Function-Error", "Unhandled") // whatever it is, since the runtimes that told them apart
	}
	_, _ = w.Write(resp.Payload) // the client may be gone
}

// denyInvoke answers an error of Invoke or Enqueue, as Lambda words it.
func denyInvoke(w http.ResponseWriter, limit int, err error) {
	switch {
	case errors.Is(err, ErrNoFunction):
		refuse(w, http.StatusNotFound, "ResourceNotFoundException", strings.Replace(err.Error(), ErrNoFunction.Error(), "Function not found", 1))
	case errors.Is(err, ErrNotJSON):
		refuse(w, http.StatusBadRequest, "InvalidRequestContentException", "Could not parse request body into json")
	case errors.Is(err, ErrTooLarge):
		refuse(w, http.StatusRequestEntityTooLarge, "RequestTooLargeException", fmt.Sprintf("Request must be smaller than %d bytes for the InvokeFunction operation", limit))
	case errors.Is(err, ErrThrottled), errors.Is(err, ErrQueueFull):
		reason := "ConcurrentInvocationLimitExceeded"
		switch {
		case errors.Is(err, ErrQueueFull):
			reason = "CallerRateLimitExceeded"
		case errors.Is(err, errReserved):
			reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
		}
		deny(w, http.StatusTooManyRequests, "TooManyRequestsException", refusal{Message: "Rate Exceeded.", Reason: reason})
	default:
		refuse(w, http.StatusInternalServerError, "ServiceException", err.Error())
	}
}

// functionName takes NAME, ACCOUNT:function:NAME or arn:PARTITION:lambda:REGION:ACCOUNT:function:NAME apart, each with or without a
// qualifier at its end. The only one that exists is $LATEST.
func functionName(s, qualifier string) (string, error) {
	parts := strings.Split(s, ":")
	switch {
	case len(parts) >= 7 && parts[0] == "arn" && parts[2] == "lambda" && parts[5] == "function":
		parts = parts[6:]
	case len(parts) >= 3 && parts[1] == "function":
		parts = parts[2:]
	}
	if len(parts) == 2 {
		qualifier = parts[1]
	}
	if len(parts) > 2 || parts[0] == "" || qualifier != "" && qualifier != "$LATEST" {
		return "", fmt.Errorf("Function not found: %.200s", s)
	}
	return parts[0], nil
}

// clientContext is JSON in base64, or nothing.
func clientContext(s string) (string, error) {
	if len(s) > maxContext {
		return "", fmt.Errorf("%d bytes, want at most %d", len(s), maxContext)
	}
	b, err := base64.StdEncoding.DecodeString(s)
	switch {
	case err != nil:
		return "", errors.New("not base64")
	case len(b) > 0 && !json.Valid(b):
		return "", errors.New("not JSON")
	}
	return string(b), nil
}
