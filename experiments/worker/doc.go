// Package worker is the processes of an experiment. Each is one function, one rendezvous or one relay, runs in the
// network namespace of its host, and does what the harness tells it. It decides nothing and judges nothing: it
// reports what happened, and when.
//
// # Protocol
//
// Both directions carry JSON objects, one a line: requests on standard input, answers on standard output. Answers
// come in the order in which the work is done. Standard error is for people.
//
//	request  {"id": 7, "op": "send", "args": {...}}
//	cancel   {"id": 7, "op": "cancel"}
//	answer   {"id": 7, "result": {...}} or {"id": 7, "error": "..."}
//
// The process ends, and all that it has started with it, at the end of standard input.
//
// Times of day are nanoseconds since 1970 of the machine's clock, which all processes of a lab share.
package worker
