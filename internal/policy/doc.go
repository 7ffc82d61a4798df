// Package policy holds the rules of the repository that no compiler checks, as tests: which package
// may import which, which library is used where, what a binary that links fnlib may reach, for which
// systems it compiles, what lies at the top level, that each package has its comment and an example,
// and that the documents tell people to type what exists. It has no code of its own to import.
//
// New packages are covered as soon as they exist. The program in gate judges the output of a test run.
package policy
