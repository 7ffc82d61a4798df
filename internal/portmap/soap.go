package portmap

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxAnswer   = 64 << 10 // with headers; descriptions take some 4 KiB
	maxServices = 4
	maxDepth    = 16 // of elements; 8 are needed
	callWait    = 3 * time.Second

	wanIP2 = "urn:schemas-upnp-org:service:WANIPConnection:2"
	wanIP1 = "urn:schemas-upnp-org:service:WANIPConnection:1"
	wanPPP = "urn:schemas-upnp-org:service:WANPPPConnection:1"
)

// Codes of UPnP errors (WANIPConnection:2, 2.5).
const (
	upnpInvalidAction  = 401
	upnpNotImplemented = 602
	upnpConflict       = 718 // the port is another's
	upnpSamePorts      = 724 // the external port must be the internal one
	upnpPermanentOnly  = 725 // it knows no leases
)

// faultError is a UPnP error that the router answers with.
type faultError struct {
	action string
	code   int
}

func (e *faultError) Error() string {
	text := map[int]string{
		501: "action failed", 606: "not authorized", upnpConflict: "the port is another's", upnpSamePorts: "only the same port",
		upnpPermanentOnly: "only permanent leases", 728: "no room for more mappings",
	}[e.code]
	return strings.TrimSpace(fmt.Sprintf("the router refuses %s: UPnP error %d %s", e.action, e.code, text))
}

// isFault tells whether err is one of some UPnP errors.
func isFault(err error, codes ...int) bool {
	var f *faultError
	if !errors.As(err, &f) {
		return false
	}
	for _, c := range codes {
		if f.code == c {
			return true
		}
	}
	return false
}

// service is what maps ports.
type service struct {
	kind    string // wanIP2, wanIP1 or wanPPP
	control *url.URL
}

// roundTrip sends one request on a connection of its own and returns the status and the body. No proxy is asked, no
// redirection followed, and no more than maxAnswer bytes are read.
func roundTrip(ctx context.Context, req *http.Request) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	to, err := hostPort(req.URL)
	if err != nil {
		return 0, nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	req.Close = true
	req.Header.Set("User-Agent", "fnwire UPnP/1.1")
	if err := req.Write(conn); err != nil {
		return 0, nil, err
	}
	limited := &io.LimitedReader{R: conn, N: maxAnswer}
	resp, err := http.ReadResponse(bufio.NewReader(limited), req)
	if err == nil {
		defer resp.Body.Close()
		body, err = io.ReadAll(resp.Body)
	}
	switch {
	case ctx.Err() != nil:
		return 0, nil, ctx.Err()
	case limited.N == 0:
		return 0, nil, fmt.Errorf("the router answers more than %d bytes", maxAnswer)
	case err != nil:
		return 0, nil, err
	}
	return resp.StatusCode, body, nil
}

// describe fetches the description at a URL.
func describe(ctx context.Context, at *url.URL, gateway netip.Addr) ([]service, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	status, body, err := roundTrip(ctx, req)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("the router's description: HTTP status %d", status)
	}
	return parseDescription(body, at, gateway)
}

type xmlRoot struct {
	XMLName xml.Name  `xml:"root"`
	Base    string    `xml:"URLBase"`
	Device  xmlDevice `xml:"device"`
}

type xmlDevice struct {
	Services []struct {
		Type    string `xml:"serviceType"`
		Control string `xml:"controlURL"`
	} `xml:"serviceList>service"`
	Devices []xmlDevice `xml:"deviceList>device"`
}

// parseDescription returns what of a device maps ports, the newest kind first. at is where the description is from.
func parseDescription(b []byte, at *url.URL, gateway netip.Addr) ([]service, error) {
	var root xmlRoot
	if err := unmarshal(b, &root); err != nil {
		return nil, fmt.Errorf("the router's description: %w", err)
	}
	base := at
	if s := strings.TrimSpace(root.Base); s != "" {
		var err error
		if base, err = gatewayURL(at, s, gateway); err != nil {
			return nil, errors.New("the router's description points elsewhere")
		}
	}
	var found []service
	for _, kind := range []string{wanIP2, wanIP1, wanPPP} {
		found = root.Device.collect(found, kind, base, gateway)
	}
	if len(found) == 0 {
		return nil, errors.New("the router's description names no WANIPConnection or WANPPPConnection at its own address")
	}
	return found, nil
}

func (d *xmlDevice) collect(found []service, kind string, base *url.URL, gateway netip.Addr) []service {
	for _, s := range d.Services {
		if strings.TrimSpace(s.Type) != kind || len(found) == maxServices {
			continue
		}
		if control, err := gatewayURL(base, strings.TrimSpace(s.Control), gateway); err == nil {
			found = append(found, service{kind, control})
		}
	}
	for i := range d.Devices {
		found = d.Devices[i].collect(found, kind, base, gateway)
	}
	return found
}

// argument of an action; values are made here, and need no escaping.
type argument struct{ name, value string }

func appendCall(b []byte, kind, action string, args []argument) []byte {
	b = fmt.Appendf(b, `<?xml version="1.0"?>`+"\r\n"+`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" `+
		`s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:%s xmlns:u="%s">`, action, kind)
	for _, a := range args {
		b = fmt.Appendf(b, "<%s>%s</%s>", a.name, a.value, a.name)
	}
	return fmt.Appendf(b, "</u:%s></s:Body></s:Envelope>\r\n", action)
}

// reply is what of the answers to any action is of use.
type reply struct {
	address string // NewExternalIPAddress
	port    uint16 // NewReservedPort; 0 if there is none
}

// call has the router do something.
func (s service) call(ctx context.Context, action string, args []argument) (reply, error) {
	body := bytes.NewReader(appendCall(nil, s.kind, action, args))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.control.String(), body)
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Content-Type", `text/xml; charset="utf-8"`)
	req.Header["SOAPAction"] = []string{`"` + s.kind + "#" + action + `"`} // as the standard writes it, for routers that compare bytes
	status, answer, err := roundTrip(ctx, req)
	switch {
	case err != nil:
		return reply{}, fmt.Errorf("%s: %w", action, err)
	case status != http.StatusOK && status != http.StatusInternalServerError: // which comes with a fault
		return reply{}, fmt.Errorf("%s: HTTP status %d", action, status)
	}
	return parseReply(answer, action)
}

type xmlEnvelope struct {
	XMLName xml.Name `xml:"Envelope"`
	Body    struct {
		Fault *struct {
			Code string `xml:"detail>UPnPError>errorCode"`
		} `xml:"Fault"`
		Response *struct {
			XMLName xml.Name
			Address string `xml:"NewExternalIPAddress"`
			Port    string `xml:"NewReservedPort"`
		} `xml:",any"`
	} `xml:"Body"`
}

// parseReply reads the answer to an action; a fault is a *faultError.
func parseReply(b []byte, action string) (reply, error) {
	var e xmlEnvelope
	if err := unmarshal(b, &e); err != nil {
		return reply{}, fmt.Errorf("%s: %w", action, err)
	}
	if f := e.Body.Fault; f != nil {
		code, err := strconv.ParseUint(strings.TrimSpace(f.Code), 10, 16)
		if err != nil {
			return reply{}, fmt.Errorf("%s: a fault without a number", action)
		}
		return reply{}, &faultError{action, int(code)}
	}
	r := e.Body.Response
	if r == nil || r.XMLName.Local != action+"Response" {
		return reply{}, fmt.Errorf("%s: another answer", action)
	}
	out := reply{address: strings.TrimSpace(r.Address)}
	if s := strings.TrimSpace(r.Port); s != "" {
		port, err := strconv.ParseUint(s, 10, 16)
		if err != nil || port == 0 {
			return reply{}, fmt.Errorf("%s: port %q", action, s)
		}
		out.port = uint16(port)
	}
	return out, nil
}

// unmarshal is strict: one element, not too deep, no entity but the five of XML. So nothing expands, and nothing is fetched.
func unmarshal(b []byte, v any) error {
	depth := 0
	for d := newDecoder(b); ; {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch token.(type) {
		case xml.StartElement:
			if depth++; depth > maxDepth {
				return errors.New("XML: too deep")
			}
		case xml.EndElement:
			depth--
		case xml.Directive:
			return errors.New("XML: a document type, which has no place here")
		}
	}
	return newDecoder(b).Decode(v)
}

func newDecoder(b []byte) *xml.Decoder {
	d := xml.NewDecoder(bytes.NewReader(b))
	// What is read is ASCII; what else there is, such as names of devices, does not matter.
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) {
		all, err := io.ReadAll(r)
		return bytes.NewReader(bytes.ToValidUTF8(all, []byte("?"))), err
	}
	return d
}
