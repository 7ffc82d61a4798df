package server

import (
	"os"
	"runtime/debug"
)

const gcPercent = 400

// TuneGC has a process that serves many instances collect its garbage more seldom than Go does by itself, unless GOGC says otherwise. A
// connection of an instance takes some 30 KiB of heap that lives as long as it does; of 10,000 a collection takes most of a second on two busy cores,
// and offers wait for it. It is for the main function of a process.
func TuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
