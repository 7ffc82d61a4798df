// Package portmap asks the router for a port: by PCP (RFC 6887), by NAT-PMP (RFC 6886) where the router is older, and by
// UPnP (Internet Gateway Device 1 or 2) where it knows neither. The first two are a question of at most 60 bytes over UDP to
// port 5351 of the default gateway, and its answer. Whatever the protocol, the package never listens to anybody but that
// gateway, never connects to anybody else, and asks for no other port than the one given. An address that nobody outside can
// reach, as there is another NAT before the router, is told as an error.
//
// PCP, MAP request and response (integers are big endian):
//
//	offset  size  field
//	     0     1  version, 2
//	     1     1  opcode, 1; 0x81 in the response
//	     2     2  zero; result code in the second byte of the response
//	     4     4  lifetime in seconds; 0 ends the mapping
//	     8    16  client's address (request), IPv4 as ::ffff:a.b.c.d; epoch in the first 4 (response)
//	    24    12  nonce
//	    36     1  protocol, 17
//	    37     3  zero
//	    40     2  internal port
//	    42     2  external port, suggested (request) or assigned (response)
//	    44    16  external address, likewise
//
// NAT-PMP, address and mapping of UDP:
//
//	request   version 0, opcode 0
//	response  version 0, opcode 128, result (2), epoch (4), external address (4)
//	request   version 0, opcode 1, zero (2), internal port (2), suggested external port (2), lifetime (4)
//	response  version 0, opcode 129, result (2), epoch (4), internal port (2), external port (2), lifetime (4)
//
// UPnP, whose messages are text. A search is sent to port 1900 of the gateway, then to 239.255.255.250 as well; of the answers,
// at most 1,500 bytes from the gateway, only ST and LOCATION are read:
//
//	M-SEARCH * HTTP/1.1
//	HOST: 10.2.0.1:1900
//	MAN: "ssdp:discover"
//	MX: 1
//	ST: urn:schemas-upnp-org:device:InternetGatewayDevice:2 (and another with 1)
//
// The rest is HTTP/1.1, a connection each, at most 64 KiB and 3 s, without redirections; LOCATION and controlURL must be at the gateway's
// own address, as a number. The description (GET) names the services; WANIPConnection:2 is taken before WANIPConnection:1 and
// WANPPPConnection:1. Its actions are SOAP (POST, SOAPAction: "TYPE#ACTION"), with these arguments in this order:
//
//	GetExternalIPAddress  ()                  NewExternalIPAddress
//	AddAnyPortMapping     (2 only; as below)  NewReservedPort
//	AddPortMapping        (NewRemoteHost, NewExternalPort, NewProtocol, NewInternalPort, NewInternalClient, NewEnabled,
//	                       NewPortMappingDescription, NewLeaseDuration in seconds)
//	DeletePortMapping     (NewRemoteHost, NewExternalPort, NewProtocol)
//
// A router that knows no leases (error 725) is given a mapping without end, which Run ends when it returns: if the process is
// killed, it stays in the router.
package portmap
