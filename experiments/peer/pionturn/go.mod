module github.com/fnwire/fnwire/experiments/peer/pionturn

go 1.26.0

require (
	github.com/fnwire/fnwire v0.0.0
	github.com/pion/logging v0.2.4
	github.com/pion/turn/v5 v5.1.3
	golang.org/x/sys v0.49.0
)

require (
	github.com/pion/dtls/v3 v3.1.9 // indirect
	github.com/pion/randutil v0.1.0 // indirect
	github.com/pion/stun/v4 v4.0.1 // indirect
	github.com/pion/transport/v5 v5.1.1 // indirect
	github.com/quic-go/quic-go v0.65.0 // indirect
	github.com/wlynxg/anet v0.0.5 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/net v0.62.0 // indirect
)

replace github.com/fnwire/fnwire => ../../..
