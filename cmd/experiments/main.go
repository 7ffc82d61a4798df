// Command experiments raises labs with NATs on this machine, measures fnwire in them, and reports.
package main

import (
	"os"

	"github.com/fnwire/fnwire/experiments/cli"
)

func main() { os.Exit(cli.Main()) }
