// Command empty is a program that links nothing, to compare with.
package main

func main() {}
