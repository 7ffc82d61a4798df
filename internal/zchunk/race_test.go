//go:build race

package zchunk

const raceEnabled = true
