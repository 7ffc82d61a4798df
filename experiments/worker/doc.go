// Package worker is the processes of an experiment. Each is one function, one rendezvous or one relay, runs in the
// network namespace of its host, and does what the harness tells it. It decides nothing and judges nothing: it
// reports what happened, and when.
//
// The protocol is that of package rpc. Times of day are nanoseconds since 1970 of the machine's clock, which all processes of a lab share.
package worker
