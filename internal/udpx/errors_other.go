//go:build !unix && !windows

package udpx

func tooBig(error) bool    { return false }
func transient(error) bool { return false }
func pending(error) bool   { return false }
