package cli

import (
	"errors"
	"strconv"
)

// Count is a flag for a whole number that is not negative. It implements pflag.Value.
type Count[T int | int64] struct{ N *T }

// Set reads the number.
func (c Count[T]) Set(s string) error {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil || n < 0 || int64(T(n)) != n {
		return errors.New("want a whole number of 0 or more")
	}
	*c.N = T(n)
	return nil
}

// String writes it.
func (c Count[T]) String() string {
	if c.N == nil { // as in the zero value that pflag makes
		return "0"
	}
	return strconv.FormatInt(int64(*c.N), 10)
}

// Type is what --help calls the value.
func (c Count[T]) Type() string { return "int" }
