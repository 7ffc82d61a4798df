// Package leaf turns keys into paths for stores that keep objects as files, or that do so behind an object interface: there the keys
// "a" and "a/b" would want a file and a directory of one name, and a name may have 255 bytes only. It never touches a file.
//
// The last segment of a path ends in "!". A segment of more than 200 bytes is cut into pieces of 200, and each but the last
// ends in "!!". No key has a "!", so neither is ever the name of a directory that a key asks for:
//
//	job/state           job/state!
//	job/state/7         job/state/7!
//	<250 bytes>         <200 bytes>!!/<50 bytes>!
package leaf

import "strings"

const (
	end   = "!"
	more  = "!!"
	piece = 200 // bytes
)

// Encode returns the path of a key that store.CheckKey lets pass.
func Encode(key string) string { return Prefix(key) + end }

// Prefix returns what the paths of all keys that start with prefix start with, and no others.
func Prefix(prefix string) string {
	if len(prefix) <= piece {
		return prefix
	}
	segments := strings.Split(prefix, "/")
	for i, s := range segments {
		var cut strings.Builder
		for len(s) > piece {
			cut.WriteString(s[:piece] + more + "/")
			s = s[piece:]
		}
		segments[i] = cut.String() + s
	}
	return strings.Join(segments, "/")
}

// Decode returns the key of a path. It is not ok if Encode gives no such path.
func Decode(path string) (key string, ok bool) {
	path, ok = strings.CutSuffix(path, end)
	if !ok || path == "" {
		return "", false
	}
	key = strings.ReplaceAll(path, more+"/", "")
	return key, !strings.Contains(key, end) && Prefix(key) == path
}
