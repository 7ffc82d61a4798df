// Package natsobj keeps states in NATS JetStream: in the store that a rendezvous with a data directory keeps for each of its
// jobs, or in a bucket on any NATS server from version 2.11 on.
//
//	s, err := natsobj.Open(ctx, "nats:")                          // of the rendezvous in FNWIRE_URL, with the key in FNWIRE_JOB_KEY
//	s, err := natsobj.Open(ctx, "nats://user:pass@host:4222/B")   // bucket B, made if it is not there; tls:// likewise
//	s, err := natsobj.Open(ctx, "nats://host:4222/B?replicas=3")  // if it is made, then on three servers of a cluster
//
// JetStream's own object store finds no place in an object without reading what is before it, needs a consumer for each read, and
// stores what a writer left that was killed for ever. So this is a format of its own. Package rendezvous/bucket says which stream
// and which subjects; the messages are:
//
// An object is one message on fnw.B.o.KEY with the header Fnwire-Object: "1 SIZE CHUNK ID", decimal bytes and 26 characters of
// base32, chosen at random for each object. If CHUNK is 0, the object is the message's body. Otherwise the body is empty, and the object is
// cut into chunks of CHUNK bytes, the last one perhaps shorter, which are the bodies of the messages on fnw.B.c.ID.0, .1 and so on.
// More words after the fourth are for later versions, and are ignored.
//
// Chunks are stored first, several at a time. The object's message then makes them appear at once, under the condition that the message
// which it replaces is the one that was looked at, so that exactly one writer removes the old one's chunks. A message has the object's time
// to live, by the server's clock. Chunks live an hour longer, so that an object that is there is whole, and what a killed writer
// left ends by itself, if the object was to have a time to live at all.
//
// Each chunk is asked for by its subject, several at a time. One that is not there any more means that the object was replaced or deleted.
package natsobj
