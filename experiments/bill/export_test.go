package bill

// For tests.
var (
	Parse = parse
	File  = file
)
