//go:build !linux

package worker

import "errors"

func mountTemp() error { return errors.New("this system has no mount namespaces") }
