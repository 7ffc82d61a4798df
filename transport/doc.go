// Package transport carries QUIC links between instances over whatever path there is: a relay at
// once, a direct one as soon as the NATs between them are punched, and back when it falls silent.
//
// An Endpoint has one UDP socket per address family. Its hub stands between the sockets and QUIC:
// QUIC sees a virtual address for each peer (see virtualAddr) and the hub decides, batch by batch,
// which way it goes. Package punch decides which paths there are. Offers and answers are verified by the
// caller, who then calls Admit; packets of anybody else are dropped before any cryptography.
//
// It never talks to the rendezvous, knows no relay protocol (see the Relay interface) and never looks
// inside a stream. What is too long for a path goes in pieces (package pieces; file narrow.go), so that no packet of QUIC's depends on
// its MTU. Its only wire format otherwise is QUIC's; connection IDs tell the class of their link (see
// classIDs), and the tag of a relayed packet is the generation of its path.
package transport
