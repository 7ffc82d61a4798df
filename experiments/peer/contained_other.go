//go:build !linux

package peer

import "os/exec"

func contained(cmd *exec.Cmd) ([]byte, error) { return cmd.CombinedOutput() }
