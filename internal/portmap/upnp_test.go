package portmap

import (
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/hostile"
)

func listen(t *testing.T, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// What is sent, byte for byte: UPnP Device Architecture 2.0, 1.3.2 and 3.1.1; WANIPConnection:2, 2.5.16.
func TestUPnPGolden(t *testing.T) {
	search := "M-SEARCH * HTTP/1.1\r\nHOST: 10.2.0.1:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n" +
		"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:2\r\n\r\n"
	if got := string(appendSearch(nil, netip.MustParseAddrPort("10.2.0.1:1900"), "2")); got != search {
		t.Errorf("search:\n%s", hex.Dump([]byte(got)))
	}
	call := "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" " +
		"s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>" +
		"<u:AddPortMapping xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\"><NewRemoteHost></NewRemoteHost>" +
		"<NewExternalPort>5000</NewExternalPort><NewProtocol>UDP</NewProtocol><NewInternalPort>4000</NewInternalPort>" +
		"<NewInternalClient>10.2.0.2</NewInternalClient><NewEnabled>1</NewEnabled>" +
		"<NewPortMappingDescription>fnwire</NewPortMappingDescription><NewLeaseDuration>600</NewLeaseDuration>" +
		"</u:AddPortMapping></s:Body></s:Envelope>\r\n"
	args := mapArguments(netip.MustParseAddr("10.2.0.2"), 4000, 5000, 600*time.Second)
	if got := string(appendCall(nil, wanIP1, "AddPortMapping", args)); got != call {
		t.Errorf("call:\n%s", got)
	}
}

// What miniupnpd 2.3.1 says.
const (
	realSearchAnswer = "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:2\r\n" +
		"USN: uuid:00000000-0000-0000-0000-000000000001::urn:schemas-upnp-org:device:InternetGatewayDevice:2\r\nEXT:\r\n" +
		"SERVER: Debian UPnP/1.1 MiniUPnPd/2.3.1\r\nLOCATION: http://10.2.0.1:33203/rootDesc.xml\r\n" +
		"OPT: \"http://schemas.upnp.org/upnp/1/0/\"; ns=01\r\n01-NLS: 1795510396\r\nBOOTID.UPNP.ORG: 1795510396\r\nCONFIGID.UPNP.ORG: 1337\r\n\r\n"
	realDescription = `<?xml version="1.0"?>` + "\n" + `<root xmlns="urn:schemas-upnp-org:device-1-0" configId="1337"><specVersion><major>1</major>` +
		`<minor>1</minor></specVersion><device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:2</deviceType><serviceList><service>` +
		`<serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/ctl/L3F</controlURL></service></serviceList><deviceList><device>` +
		`<deviceType>urn:schemas-upnp-org:device:WANDevice:2</deviceType><deviceList><device><deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:2` +
		`</deviceType><serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:2</serviceType><SCPDURL>/WANIPCn.xml</SCPDURL>` +
		`<controlURL>/ctl/IPConn</controlURL></service></serviceList></device></deviceList></device></deviceList>` +
		`<presentationURL>http://10.2.0.1/</presentationURL></device></root>`
	realAddress = ` <?xml version="1.0"?>` + "\n" + `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">` +
		`<s:Body><u:GetExternalIPAddressResponse xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:2"><NewExternalIPAddress>198.51.100.7</NewExternalIPAddress>` +
		`</u:GetExternalIPAddressResponse></s:Body></s:Envelope>` + "\n"
	realPort = ` <?xml version="1.0"?>` + "\n" + `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:AddAnyPortMappingResponse ` +
		`xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:2"><NewReservedPort>4000</NewReservedPort></u:AddAnyPortMappingResponse></s:Body></s:Envelope>`
	realFault = ` <s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring>` +
		`<detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>718</errorCode><errorDescription>ConflictInMappingEntry</errorDescription>` +
		`</UPnPError></detail></s:Fault></s:Body></s:Envelope>`
)

var realGateway = netip.MustParseAddr("10.2.0.1")

func TestUPnPParsers(t *testing.T) {
	at, err := parseSearchAnswer([]byte(realSearchAnswer), realGateway)
	if err != nil || at.String() != "http://10.2.0.1:33203/rootDesc.xml" {
		t.Fatalf("%v, %v", at, err)
	}
	services, err := parseDescription([]byte(realDescription), at, realGateway)
	if err != nil || len(services) != 1 || services[0].kind != wanIP2 || services[0].control.String() != "http://10.2.0.1:33203/ctl/IPConn" {
		t.Errorf("%v, %v", services, err)
	}
	if r, err := parseReply([]byte(realAddress), "GetExternalIPAddress"); err != nil || r != (reply{address: "198.51.100.7"}) {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := parseReply([]byte(realPort), "AddAnyPortMapping"); err != nil || r != (reply{port: 4000}) {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := parseReply([]byte(realFault), "AddPortMapping"); !isFault(err, upnpConflict) || !strings.Contains(err.Error(), "another's") {
		t.Errorf("%v", err)
	}
	if _, err := parseReply([]byte(realPort), "AddPortMapping"); err == nil {
		t.Error("the answer to one action was taken for another's")
	}
	for name, location := range map[string]string{
		"another host": "http://10.2.0.9:33203/", "a name": "http://localhost:80/", "a user": "http://10.2.0.1@10.2.0.9/", "a file": "file:///etc/passwd",
		"no URL": "://", "nothing": "", "TLS": "https://10.2.0.1/", "a port that is none": "http://10.2.0.1:99999/", "too long": "http://10.2.0.1/" + strings.Repeat("x", maxURL),
	} {
		answer := strings.Replace(realSearchAnswer, "http://10.2.0.1:33203/rootDesc.xml", location, 1)
		if u, err := parseSearchAnswer([]byte(answer), realGateway); !errors.Is(err, errForeign) {
			t.Errorf("%s: %v, %v", name, u, err)
		}
	}
	if u, err := parseSearchAnswer([]byte("HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\nLOCATION: http://10.2.0.1/\r\n\r\n"), realGateway); !errors.Is(err, errForeign) {
		t.Errorf("another kind of device: %v, %v", u, err)
	}
	if _, err := parseSearchAnswer([]byte(realSearchAnswer+strings.Repeat("x", ssdpMax)), realGateway); !errors.Is(err, errForeign) {
		t.Errorf("too long: %v", err)
	}
}

func FuzzSearchAnswer(f *testing.F) {
	for _, b := range hostile.Of(
		[]byte(realSearchAnswer),
		[]byte("HTTP/1.0 200\nst:urn:schemas-upnp-org:device:InternetGatewayDevice:1\nlocation:http://10.2.0.1"),
		[]byte("HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLOCATION: http://10.2.0.1@10.2.0.9/\r\n\r\n"),
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if u, err := parseSearchAnswer(b, realGateway); err == nil {
			wantGateway(t, u)
		}
	})
}

// wantGateway holds that a URL leads to the gateway, read in another way than the code does.
func wantGateway(t *testing.T, u *url.URL) {
	t.Helper()
	to, err := hostPort(u)
	again, perr := url.Parse(u.String())
	if err != nil || perr != nil || to.Addr() != realGateway || again.Hostname() != realGateway.String() || again.Scheme != "http" || again.User != nil {
		t.Errorf("%v leads to %v, %v", u, to, errors.Join(err, perr))
	}
}

func FuzzDescription(f *testing.F) {
	d := device{kinds: []string{wanIP1, wanPPP}, base: "http://10.2.0.1:5000/"}
	f.Add([]byte(realDescription))
	f.Add([]byte(d.description()))
	f.Add([]byte(bomb))
	f.Add([]byte("<root><device>" + strings.Repeat("<deviceList><device>", 100)))
	f.Add([]byte(strings.Replace(d.description(), "http://", "https://10.2.0.9@", 1)))
	f.Add([]byte{})
	f.Add([]byte("<root><device><serviceList><service><serviceType>" + wanPPP + "</serviceType><controlURL>c</controlURL></service></serviceList></device></root>"))
	at, err := url.Parse("http://10.2.0.1:33203/rootDesc.xml")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		services, err := parseDescription(b, at, realGateway)
		if (err == nil) != (len(services) > 0) || len(services) > maxServices {
			t.Errorf("%v, %v", services, err)
		}
		for _, s := range services {
			wantGateway(t, s.control)
		}
	})
}

func FuzzActionReply(f *testing.F) {
	for _, b := range hostile.Of(
		[]byte(realAddress),
		[]byte(realPort),
		[]byte(realFault),
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, action := range []string{"GetExternalIPAddress", "AddAnyPortMapping"} {
			r, err := parseReply(b, action)
			if err != nil && r != (reply{}) {
				t.Errorf("%+v beside %v", r, err)
			}
			if err == nil && len(r.address)+5 > len(b) {
				t.Errorf("%q grew out of %d bytes", r.address, len(b))
			}
		}
	})
}
