// Package portmap asks the router for a port: by PCP (RFC 6887), and by NAT-PMP (RFC 6886) where the router is older. Both
// are a question of at most 60 bytes over UDP to port 5351 of the default gateway, and its answer. It never listens to
// anybody else, and asks for no other port than the one given.
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
package portmap
