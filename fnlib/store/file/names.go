package file

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/internal/leaf"
)

// fold puts a "^" before each capital letter and makes it small.
func fold(key string) string {
	var b strings.Builder
	for _, c := range []byte(key) {
		if 'A' <= c && c <= 'Z' {
			b.WriteByte('^')
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()
}

// pathOf returns where an object lies in the directory, with slashes.
func pathOf(key string) string { return leaf.Encode(fold(key)) }

// keyOf is the reverse. It is not ok if no key leads there.
func keyOf(name string) (key string, ok bool) {
	folded, ok := leaf.Decode(name)
	if !ok {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(folded); i++ {
		c := folded[i]
		if c == '^' && i+1 < len(folded) {
			i++
			c = folded[i] - 'a' + 'A'
		}
		b.WriteByte(c)
	}
	key = b.String()
	return key, store.CheckKey(key) == nil && pathOf(key) == name
}

// temp makes a file to write an object into.
func (s *Store) temp() (name string, f *os.File, err error) {
	for range 2 {
		name = tmpDir + "/" + rand.Text()
		f, err = s.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
		if !errors.Is(err, fs.ErrNotExist) {
			return name, f, err
		}
		if err = s.root.MkdirAll(tmpDir, dirMode); err != nil {
			break
		}
	}
	return name, nil, err
}
