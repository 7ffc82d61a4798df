package fnlib

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// content is the bytes of a state that a node keeps: in memory while the node has room, else in a file. It grows by add and is
// read, by many goroutines, when it is whole.
type content struct {
	k      *keeper
	blocks [][]byte // in memory; each but the last has blockSize bytes
	file   *os.File // or here
	path   string   // of the file if it has to be removed when it is closed
	size   int64
}

// add appends a block, of which it keeps a copy.
func (c *content) add(block []byte) error {
	if c.size%blockSize != 0 {
		return fmt.Errorf("a block after the last one, at byte %d", c.size) // only by a mistake of this package
	}
	if c.size+int64(len(block)) > maxRefBytes {
		return fmt.Errorf("the state has more than %d GiB", maxRefBytes>>30)
	}
	if c.file == nil && c.k.reserve(int64(len(block))) {
		c.blocks = append(c.blocks, bytes.Clone(block))
		c.size += int64(len(block))
		return nil
	}
	if c.file == nil {
		if err := c.toFile(); err != nil {
			return fileError(err)
		}
	}
	if _, err := c.file.Write(block); err != nil {
		return fileError(err)
	}
	c.size += int64(len(block))
	return nil
}

func fileError(err error) error {
	return fmt.Errorf("the state does not fit into memory and cannot be kept in a temporary file: %w (the environment's TMPDIR says where, Config.PutMemory what stays in memory)", err)
}

// toFile moves what is in memory to a file. It has no name any more where the system allows that: it goes when the process does.
func (c *content) toFile() error {
	f, err := os.CreateTemp("", "fnwire-put-*")
	if err != nil {
		return err
	}
	c.file = f
	if err := os.Remove(f.Name()); err != nil {
		c.path = f.Name()
	}
	for _, b := range c.blocks {
		if _, err := f.Write(b); err != nil {
			return err
		}
	}
	c.forget()
	return nil
}

// forget lets go the memory.
func (c *content) forget() {
	for _, b := range c.blocks {
		c.k.release(int64(len(b)))
	}
	c.blocks = nil
}

// ReadAt is of io.ReaderAt.
func (c *content) ReadAt(b []byte, at int64) (n int, err error) {
	if c.file != nil {
		return c.file.ReadAt(b, at)
	}
	for n < len(b) {
		if at >= c.size {
			return n, io.EOF
		}
		m := copy(b[n:], c.blocks[at/blockSize][at%blockSize:])
		n += m
		at += int64(m)
	}
	return n, nil
}

// close gives back the room. Who still reads gets an error, or goes on with what it has.
func (c *content) close() {
	for _, b := range c.blocks { // which stay, for those who read them
		c.k.release(int64(len(b)))
	}
	if c.file == nil {
		return
	}
	_ = c.file.Close() // what was written is wanted no more
	if c.path != "" {
		_ = os.Remove(c.path) // nothing else can be done about it
	}
}
