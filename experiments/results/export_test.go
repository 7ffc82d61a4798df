package results

// Slowed is what tells that a window was slow.
var Slowed = slowed
