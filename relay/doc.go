// Package relay is the client's leg of the relay protocol, and the protocol itself. A relay forwards
// packets between the instances of a job by identity, so that a link works before, and without, a
// direct path. It never sees plaintext, never stores, and no field of any frame makes it send to an
// address that did not bind itself.
//
// # Frames
//
// A frame is one UDP datagram, or a part of a message over TLS (below); its first byte is 0x20 to 0x2f, which neither QUIC (from 0x40 on) nor
// STUN (0 to 3) uses, so all three share a socket. Integers are big endian. Frames have exactly the
// length given here and version 1, else they are dropped without an answer; DATA alone varies.
// An instance is addressed by its Short: 8 bytes of a hash over job ID and public key.
//
//	DATA       0x20  both ways; at most 1472 bytes
//	     0     1  0x20
//	     1     3  tag, carried unchanged from end to end
//	     4     8  Short of the destination; the relay writes that of the source in its place
//	    12        packet
//
//	BIND       0x21  client to relay, 1232 bytes
//	     0     4  0x21, version, 0, 0
//	     4     8  nonce, random, one for each bind
//	    12     8  milliseconds since 1970; grows from one bind of an instance to the next
//	    20   156  token (package internal/token)
//	   176    64  Ed25519 signature by the instance over "fnwire v1 relay bind\0", SHA-256(relay ID), bytes 0..175
//	   240   992  zeros: three times a BIND is what the relay may send before the address is proven, and a
//	              QUIC handshake that comes before the proof must fit
//
//	CHALLENGE  0x22  relay to client, 32 bytes
//	     0     4  0x22, version, 0, 0
//	     4     8  nonce of the BIND
//	    12    20  cookie: 4 bytes of coarse time, 16 of a MAC over source address and Short; opaque to the client
//
//	PROVE      0x23  client to relay, 104 bytes
//	     0     4  0x23, version, 0, 0
//	     4     8  Short of the client
//	    12     8  nonce of the BIND
//	    20    20  cookie
//	    40    64  Ed25519 signature by the instance over "fnwire v1 relay prove\0", SHA-256(relay ID), bytes 0..39
//
//	BOUND      0x24  relay to client, 44 bytes
//	     0     4  0x24, version, 0, 0
//	     4     8  nonce of the BIND
//	    12     4  seconds until the session ends
//	    16    16  client's address as the relay sees it (IPv4 as ::ffff:a.b.c.d)
//	    32     2  and port
//	    34     2  0, 0
//	    36     8  relay's number, random at each start
//
//	PING       0x25  client to relay, 20 bytes
//	     0     4  0x25, version, 0, 0
//	     4     8  Short of the client
//	    12     8  nonce, random but for the last byte, which is the try
//
//	PONG       0x26  relay to client, 20 bytes
//	     0     4  0x26, version, 0, 0
//	     4     8  nonce of the PING
//	    12     8  relay's number
//
//	UNBOUND    0x27  relay to client, 12 bytes: no such session at the address the PING came from
//	     0     4  0x27, version, 0, 0
//	     4     8  nonce of the PING
//
//	GONE       0x28  relay to client, 12 bytes: a DATA's destination is not bound here
//	     0     1  0x28
//	     1     3  first bytes of the nonce of the client's BIND, so that nobody off the path can make one
//	     4     8  Short of the destination
//
//	REFUSED    0x29  relay to client, 12 bytes: token and signature are good, but no session; or, unasked, with reason 7 and
//	                 the nonce of the session's BIND: the relay is about to end
//	     0     4  0x29, version, reason, 0
//	     4     8  nonce of the BIND
//
// # A session
//
//	client                               relay
//	  | BIND(nonce, token, signature) ---> |  token minted by the rendezvous, for this relay, not expired;
//	  |                                    |  signed by the key in the token
//	  | <------------------ CHALLENGE(cookie)  the session can be used: one round trip
//	  | PROVE(cookie, signature) --------> |  the address is the client's: limits on replies fall
//	  | <--------------------------- BOUND |
//
// Until PROVE the relay sends at most three times the bytes it got from that address. An unproven
// session never takes packets from another one of the same Short; of proven ones the newest wins. A
// BIND older than the latest of that Short, or the same one from another address, is ignored, so a
// captured one is worth nothing; a captured PROVE is bound to its address by the cookie. Sessions end
// with their token, or after a minute in which nothing came from the client; a BIND with a newer token
// prolongs them in place.
//
// # The same over TLS
//
// Where UDP is blocked the same frames go over a WebSocket connection on TLS to path /fnwire/v1 of the relay's
// HTTPS address. Binary messages go both ways; each is a batch of frames, at most 65,536 bytes:
//
//	0     2  bytes of the frame, 1 to 1472
//	2        frame; then the next one
//
// Any other message ends the connection. A connection stands for the address: it is bound by the same BIND,
// CHALLENGE and PROVE, for one instance, and ends with its session, or after 10 s without one, or a minute
// without a message (clients ping every 15 s). STUN is not answered on it. What a reader does not
// take in time is dropped: 256 KiB wait for it besides what TCP holds, and a message that takes 10 s ends the
// connection. The client knows the relay by the SHA-256 hash of its certificate, which the rendezvous has told it;
// name, term and issuer do not matter, so the relay may sign it itself.
//
// The client races both ways: it connects when UDP has given no session for 200 ms (or one and a half round
// trips, if it knows them), or when two pings in a row went unanswered, and goes on asking over UDP. As the newest
// proven session of a Short wins, and UDP binds anew when it answers, UDP takes over as soon as it can;
// the relay then lets what is queued go out and hangs up. An HTTP proxy of the environment is asked to CONNECT.
//
// What is not authenticated gets silence, with two exceptions that are smaller than their cause:
// UNBOUND, and STUN binding responses (package relay/server). No reply exceeds its request.
package relay
