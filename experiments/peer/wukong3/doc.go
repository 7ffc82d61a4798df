// Package wukong3 is a baseline: links between functions as the literature's slow port made them, with what made them slow
// switchable one by one ([Causes]). The port is Wukong 3.0 (B. Carver, Enabling fine-grained serverless applications, MS thesis,
// George Mason University 2021, chapter 5): Wukong with its hand-overs over UDP sockets that were punched through their NATs. It
// needed 4 to 5 seconds for each connection, moved 50 to 60 Mb/s, and was several times slower than the same over storage. Its links were those of
// SNC (serverless networking clients: the source of lambda_networking/connect.py), which uses UDT 4 (src/core.cpp, src/queue.cpp).
//
// One call hands over one state to who has the same key, with package onestream on top. First both ends pair by a
// [Coordinator], to which they are connected by TLS: when both have come, it tells each the other's mapped address. Then they punch
// as UDT's rendezvous connects: three messages, each sent again after Resend ([Causes]), and at once when something was heard. There is no
// relay: ends that cannot reach each other fail with [ErrUnreachable]. Over the punched sockets the state goes by quic-go, as in package plainquic.
//
// It is kinder than the port in this: quic-go has no fragments (SNC's packets of 9,000 bytes were fragmented at 1,500; what that
// cost was not measured, so there is Window and Rate only), one round trip for its handshake with encryption, better congestion control; there is no
// API gateway with signed requests and no HTTP before the coordinator, no process of Python to start; a node that waits for one
// end goes on with the set-up of others, so that functions which wait for one another in a ring do not wait for ever; a
// client that dies is forgotten. UDT's waits of up to 1 s in receive calls end when a packet comes, so they cost nothing here. Nothing polls.
//
// # Messages
//
// Between a node and the coordinator, over TLS, each with a byte for its kind, two for the length of what follows, and
// that. Numbers are big endian; addresses have 16 bytes and a port.
//
//	kind  message  fields
//	   1  PAIR     number 4, flags 1 (1 sends, 2 serial), mapped port 2, node 16, length of certificate 2, certificate, key 1..256
//	   2  MATCH    number 4, pairing 16, address 18, certificate of the other end
//	   3  DONE     number 4
//	   4  REFUSED  number 4, reason
//
// PAIR asks for the other end of a key, and DONE says that this is no longer wanted or that the set-up has ended. The number is the node's, to tell its
// pairings apart. The other end is where its TCP connection comes from, as in SNC, with the port that it gives.
//
// Over UDP, between a node and the coordinator (ECHO, ECHOED) and between nodes:
//
//	offset  size  field
//	     0     1  kind: 1 ECHO, 2 ECHOED, 3 CALLING, 4 AGREED, 5 CONNECTED
//	     1    16  token of the question, or the pairing
//	    17    18  ECHOED: address that ECHO came from; ECHO: zeros; else absent
//
// QUIC's packets, whose first byte is 0x40 or more, go over the same socket; the ALPN of a pairing is itself, in hex.
package wukong3
