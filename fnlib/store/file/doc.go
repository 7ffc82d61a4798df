// Package file keeps states in a directory: of one machine, or on a file system that several mount.
//
//	s, err := file.Open(ctx, "file:///var/lib/fnwire")
//
// An object is one file, written beside the others, synced, and moved into place, so that it is there whole or not at all, also after
// a crash. A reader keeps the object that it opened, whatever replaces it (on Windows, where an open file cannot be replaced, the one
// who replaces fails). What leaves the directory by a symbolic link is refused, and files that are not fnwire's are left alone.
//
// The name of a file is the key, with "^" before each capital letter, for file systems that see no difference there, and cut
// as package leaf says. Names that no key leads to are the package's own: "+tmp" holds what is being written, "+lock" is locked
// while an object is moved into place or swept. A file begins with a header of 12 bytes, all integers big-endian:
//
//	0  4  "fnw1"
//	4  8  milliseconds since 1970 after which it has expired; 0: never
//	12    the object
//
// Objects that have expired are gone for Get and List at once. A goroutine removes them, directories that are empty, and what
// killed writers left and nobody has written to for an hour: at Open, and every ten minutes until Close.
package file
