// Command tiny is the least that a function can be: it links fnlib. The policy tests look into its
// binary.
package main

import (
	"fmt"

	_ "github.com/fnwire/fnwire/fnlib"
)

func main() { fmt.Println("tiny") }
