// Package redis keeps states in a Redis server (6.0 or later, Valkey too), over one connection with pipelining.
//
//	s, err := redis.Open(ctx, "rediss://user:password@host:6379/0")
//
// redis: is TCP, rediss: TLS; the port may be left out, and so may user, password and database. ?prefix= sets what the names of all
// keys begin with, "fnwire:" otherwise. Clusters are not supported. What a user of the server must be allowed, beside connecting, is
//
//	~fnwire:* +hset +hmget +hlen +pexpire +persist +rename +unlink +scan +multi +exec +ping
//
// An object is one hash, so that it appears, expires and is evicted whole:
//
//	meta      fnw1 ID SIZE, with spaces between: 32 hexadecimal digits, fresh with each Put, and the bytes in decimal
//	0, 1, ... its chunks, of 512 KiB each but the last
//
// Put writes chunks to a hash of another name, "!" and the ID after the prefix, which expires an hour after the last of them, and renames it. A
// reader asks for each chunk together with meta, and fails if that is not what it began with. List goes through all keys
// of the database with SCAN, so states want a database of their own where there are millions of other keys.
//
// With a maxmemory-policy other than noeviction (or volatile-*, for states without TTL) the server may drop states to make room. How durable
// a Put is, is the server's business too (appendonly).
package redis
