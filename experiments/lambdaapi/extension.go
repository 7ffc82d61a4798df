package lambdaapi

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
)

const (
	eventInvoke   = "INVOKE"
	maxExtensions = 10
	maxRegister   = 64 << 10 // bytes
)

// extension is one that lives in the function's process. Its fields are guarded by Instance.mu.
type extension struct {
	name    string
	invoke  bool   // it gets each event
	waiting bool   // for the next one
	event   *event // to be given
}

func (i *Instance) serveRegister(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Events []string `json:"events"`
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRegister))
	if err == nil {
		err = json.Unmarshal(body, &asked)
	}
	x := &extension{name: r.Header.Get(headerExtName), invoke: slices.Contains(asked.Events, eventInvoke)}
	forbid := func(kind, format string, args ...any) { refuse(w, http.StatusForbidden, kind, format, args...) }
	switch {
	case x.name == "":
		forbid("Extension.InvalidExtensionName", "Empty extension name")
		return
	case err != nil:
		forbid("InvalidRequestFormat", "%v", err)
		return
	}
	for _, e := range asked.Events {
		if e != eventInvoke {
			forbid("Extension.InvalidEventType", "%.40s: not for an extension in the function's process", e)
			return
		}
	}
	id := newID()
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case i.inited:
		forbid("Extension.RegistrationClosed", "Extension registration closed already")
		return
	case len(i.extensions) == maxExtensions:
		forbid("Extension.TooManyExtensions", "Extension limit (%d) reached", maxExtensions)
		return
	}
	for _, other := range i.extensions {
		if other.name == x.name {
			forbid("Extension.InvalidExtensionState", "Extension with this name already registered")
			return
		}
	}
	i.extensions[id] = x
	w.Header().Set(headerExtID, id)
	f := i.cfg.Function
	answer(w, http.StatusOK, map[string]string{"functionName": f.Name, "functionVersion": f.Version, "handler": f.Handler})
}

// serveExtension gives an extension the next event that it has registered for.
func (i *Instance) serveExtension(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	x := i.extensions[r.Header.Get(headerExtID)]
	if x == nil {
		i.mu.Unlock()
		refuse(w, http.StatusForbidden, "Extension.UnknownExtensionIdentifier", "Unknown extension")
		return
	}
	x.waiting = true
	i.update()
	for x.event == nil {
		if i.await(r.Context()) != nil {
			x.waiting = false
			i.mu.Unlock()
			return
		}
	}
	e := x.event
	x.event, x.waiting = nil, false
	i.mu.Unlock()
	answer(w, http.StatusOK, map[string]any{
		"eventType": eventInvoke, "deadlineMs": e.deadline.UnixMilli(), "requestId": e.ID, "invokedFunctionArn": e.arn,
		"tracing": map[string]string{"type": "X-Amzn-Trace-Id", "value": e.TraceID},
	})
}
