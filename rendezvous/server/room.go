package server

import (
	"io/fs"
	"path/filepath"
)

// room returns how many bytes JetStream may have in a directory: three quarters of what the disk has free, as nats-server itself takes, and
// what is there already, so that it is the same after a restart. 0: not known, and nats-server finds out for itself.
func room(dir string) (bytes int64) {
	free, ok := diskFree(dir)
	if !ok {
		return 0
	}
	var used int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error { // what cannot be read is not counted
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				used += info.Size()
			}
		}
		return nil
	})
	return free/4*3 + used
}
