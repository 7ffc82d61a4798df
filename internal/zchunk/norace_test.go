//go:build !race

package zchunk

const raceEnabled = false
