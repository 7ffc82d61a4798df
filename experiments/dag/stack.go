package dag

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"

	"gonum.org/v1/gonum/floats"
)

// stack makes the factor R of factors R, one below the other, while it is read: a row of it needs no more than as many rows of each of them.
// The pivot of column i is the row i of the first factor; the rows of the others that have come are eliminated from it by a
// Householder reflection, which leaves them with a column less (Golub and Van Loan, Matrix Computations, 4th ed., 5.1 and 12.5; LAPACK's DTPQRT
// does the same with all rows at hand).
type stack struct {
	in    []*bufio.Reader
	n     int         // columns
	below [][]float64 // rows of the other factors, from column row on
	row   int         // that comes next
	sum   []float64   // scratch
	out   []byte
}

func newStack(in []io.Reader, n int) *flow {
	s := &stack{in: inflow(in), n: n, sum: make([]float64, n)}
	return &flow{more: s.more}
}

// more makes the rows that all inputs have at hand.
func (s *stack) more() ([]byte, error) {
	if s.row == s.n {
		return nil, s.end()
	}
	out := s.out[:0]
	for s.row < s.n && (len(out) < flowLeast || len(out) < flowMost && s.atHand()) {
		pivot, err := s.next(0)
		for i := 1; i < len(s.in) && err == nil; i++ {
			var r []float64
			r, err = s.next(i)
			s.below = append(s.below, r)
		}
		if err != nil {
			return out, err
		}
		s.eliminate(pivot)
		out = appendNumbers(out, pivot)
		s.row++
	}
	s.out = out
	return out, nil
}

// atHand tells whether the next row can be made without waiting.
func (s *stack) atHand() bool {
	for _, r := range s.in {
		if r.Buffered() < (s.n-s.row)*numberBytes {
			return false
		}
	}
	return true
}

// next reads the next row of an input.
func (s *stack) next(input int) ([]float64, error) {
	row := make([]byte, (s.n-s.row)*numberBytes)
	if _, err := io.ReadFull(s.in[input], row); err != nil {
		return nil, fmt.Errorf("input %d: row %d: %w", input, s.row, noEOF(err))
	}
	return Decode(row), nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// end returns io.EOF if all inputs end here, which is when they are known to be right.
func (s *stack) end() error {
	for i, r := range s.in {
		switch _, err := r.ReadByte(); {
		case err == nil:
			return fmt.Errorf("input %d: more than %d numbers", i, triangle(s.n))
		case !errors.Is(err, io.EOF):
			return fmt.Errorf("input %d: %w", i, err)
		}
	}
	return io.EOF
}

// eliminate has the first column of the rows below be 0, and takes it away: it reflects the column to a multiple of the pivot's.
func (s *stack) eliminate(pivot []float64) {
	norm := 0.0
	for _, r := range s.below {
		norm = math.Hypot(norm, r[0])
	}
	if norm != 0 {
		// v is the column less alpha in the pivot's place, divided by what is there then, v0; tau = 2 / v'v.
		alpha := -math.Copysign(math.Hypot(norm, pivot[0]), pivot[0])
		v0 := pivot[0] - alpha
		tau := v0 / -alpha
		sum := s.sum[:len(pivot)-1] // v'A, of the columns that are left
		copy(sum, pivot[1:])
		for _, r := range s.below {
			floats.AddScaled(sum, r[0]/v0, r[1:])
		}
		floats.AddScaled(pivot[1:], -tau, sum)
		for _, r := range s.below {
			floats.AddScaled(r[1:], -tau*r[0]/v0, sum)
		}
		pivot[0] = alpha
	}
	for i := range s.below {
		s.below[i] = s.below[i][1:]
	}
}
