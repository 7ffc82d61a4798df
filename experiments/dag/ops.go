package dag

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// Op is what a task does. Values are numbers of 8 bytes (IEEE 754, little-endian), without anything before or after.
type Op string

// The operations.
const (
	Numbers Op = "numbers" // makes the sum of the numbers Lo to Hi-1, each of them a vector of Elems numbers: first the number itself, then see noise
	Sum     Op = "sum"     // adds vectors; it gives out each number of the sum as soon as it has those to add
	Block   Op = "block"   // makes the factor R of the rows Lo to Hi-1 of the matrix
	Stack   Op = "stack"   // makes the factor R of factors R, one below the other; it gives out each row as soon as it has those to make it of
	Values  Op = "values"  // makes the singular values of a factor R
)

func (o Op) check(inputs int) error {
	var ok bool
	switch o {
	case Numbers, Block:
		ok = inputs == 0
	case Sum, Stack:
		ok = inputs > 0
	case Values:
		ok = inputs == 1
	default:
		return fmt.Errorf("no operation %q", o)
	}
	if !ok {
		return fmt.Errorf("%s with %d inputs", o, inputs)
	}
	return nil
}

// flows tells whether an output can be read before all inputs are there.
func (o Op) flows() bool { return o == Numbers || o == Sum || o == Stack }

// size is how many bytes the output of a task has; 0 if it is not in the schedule.
func (g *Graph) size(id int) int64 {
	t, _ := g.task(id)
	switch t.Op {
	case Numbers, Sum:
		return int64(g.Elems) * numberBytes
	case Block, Stack:
		return int64(triangle(g.Cols)) * numberBytes
	case Values:
		return int64(g.Cols) * numberBytes
	}
	return 0
}

// apply has a task of the graph make its output of its inputs. What is read from the output may be made only then.
func (g *Graph) apply(t Task, in []io.Reader) (io.Reader, error) {
	switch t.Op {
	case Numbers:
		return newVector(t.Lo, t.Hi, g.Elems), nil
	case Sum:
		return newSum(in), nil
	case Block:
		return encode(factor(g.block(t.Lo, t.Hi))), nil
	case Stack:
		return newStack(in, g.Cols), nil
	case Values:
		r, err := decode(in[0], triangle(g.Cols))
		if err != nil {
			return nil, err
		}
		values, err := singular(mat.NewDense(g.Cols, g.Cols, unpack(r, g.Cols)))
		if err != nil {
			return nil, err
		}
		return encode(values), nil
	}
	return nil, fmt.Errorf("no operation %q", t.Op)
}

// Expected is what the graph's result must be, found here and by another way; and by how much each number may differ, as a share of the first.
func (g *Graph) Expected() (result []float64, tolerance float64, err error) {
	if g.result().Op != Values {
		n := 0
		for _, t := range g.Leaves() {
			n = max(n, t.Hi)
		}
		all := newVector(0, n, g.Elems)
		for j := range g.Elems {
			result = append(result, all.number(j))
		}
		return result, 0, nil // whole numbers
	}
	rows := 0
	for _, t := range g.Leaves() {
		rows = max(rows, t.Hi)
	}
	gram := mat.NewSymDense(g.Cols, nil) // whose eigenvalues are the squares
	for lo := 0; lo < rows; lo += gramRows {
		gram.SymRankK(gram, 1, g.block(lo, min(lo+gramRows, rows)).T())
	}
	var eigen mat.EigenSym
	if !eigen.Factorize(gram, false) {
		return nil, 0, errors.New("dag: the eigenvalues do not converge")
	}
	for _, v := range eigen.Values(nil) {
		result = append(result, math.Sqrt(max(v, 0)))
	}
	slices.Reverse(result)
	return result, 1e-9, nil
}

const gramRows = 4096 // at a time

// Same tells whether a result is the expected one.
func Same(got, want []float64, tolerance float64) error {
	if len(got) != len(want) {
		return fmt.Errorf("dag: %d numbers, want %d", len(got), len(want))
	}
	for i := range want {
		if !(math.Abs(got[i]-want[i]) <= tolerance*math.Abs(want[0])) {
			return fmt.Errorf("dag: number %d is %v, want %v", i, got[i], want[i])
		}
	}
	return nil
}

// block makes rows of the matrix, whose numbers are random and of normal distribution: each row of a seed of its own, so that all who make it make the same.
func (g *Graph) block(lo, hi int) *mat.Dense {
	data := make([]float64, 0, (hi-lo)*g.Cols)
	for row := lo; row < hi; row++ {
		r := rand.New(rand.NewPCG(g.Seed, uint64(row)))
		for range g.Cols {
			data = append(data, r.NormFloat64())
		}
	}
	return mat.NewDense(hi-lo, g.Cols, data)
}

// triangle is how many numbers the upper triangle of a square matrix has.
func triangle(n int) int { return n * (n + 1) / 2 }

// factor returns the upper triangle R of a = QR, row by row.
func factor(a *mat.Dense) []float64 {
	var qr mat.QR
	qr.Factorize(a)
	var r mat.Dense
	qr.RTo(&r)
	_, n := r.Dims()
	out := make([]float64, 0, triangle(n))
	for i := range n {
		out = append(out, r.RawRowView(i)[i:n]...)
	}
	return out
}

// unpack returns the square matrix of an upper triangle, row by row.
func unpack(r []float64, n int) []float64 {
	out := make([]float64, n*n)
	for i := range n {
		copy(out[i*n+i:(i+1)*n], r)
		r = r[n-i:]
	}
	return out
}

func singular(a *mat.Dense) ([]float64, error) {
	var svd mat.SVD
	if !svd.Factorize(a, mat.SVDNone) {
		return nil, errors.New("the singular values do not converge")
	}
	return svd.Values(nil), nil
}

const numberBytes = 8

func encode(v []float64) *bytes.Reader {
	return bytes.NewReader(appendNumbers(make([]byte, 0, numberBytes*len(v)), v))
}

func appendNumbers(b []byte, v []float64) []byte {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	}
	return b
}

// Decode returns the numbers of a value.
func Decode(b []byte) []float64 {
	v := make([]float64, len(b)/numberBytes)
	for i := range v {
		v[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[numberBytes*i:]))
	}
	return v
}

// decode reads n numbers, and no more.
func decode(r io.Reader, n int) ([]float64, error) {
	b := make([]byte, numberBytes*n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("want %d numbers: %w", n, err)
	}
	if extra, err := io.Copy(io.Discard, r); err != nil || extra > 0 { // until its end, which is when it is known to be right
		return nil, errors.Join(err, fmt.Errorf("%d bytes too many", extra))
	}
	return Decode(b), nil
}

// vector is the sum of the numbers of a leaf.
type vector struct {
	lo, hi    int
	at, elems int
	rest      [numberBytes]byte // of the number at hand, what was not read
	left      int
}

func newVector(lo, hi, elems int) *vector { return &vector{lo: lo, hi: hi, elems: elems} }

// noisy is how many numbers there are to one whose vector has noise.
const noisy = 16

// number is the j-th of the vector.
func (v *vector) number(j int) float64 {
	sum := float64(v.hi-v.lo) * float64(v.lo+v.hi-1) / 2
	if j == 0 {
		return sum
	}
	for n := (v.lo + noisy - 1) / noisy * noisy; n < v.hi; n += noisy {
		sum += float64(noise(n, j))
	}
	return sum
}

// noise is added to the j-th number of the vector of n: 45 bits that look random, so that vectors cannot be compressed, and of which 128 can be added
// without rounding. It is the mixing of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
func noise(n, j int) uint64 {
	z := (uint64(n)<<32 + uint64(j)) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return (z ^ z>>31) >> 19
}

// Read implements io.Reader.
func (v *vector) Read(b []byte) (n int, err error) {
	for n < len(b) {
		if v.left == 0 {
			if v.at == v.elems {
				if n == 0 {
					return 0, io.EOF
				}
				return n, nil
			}
			binary.LittleEndian.PutUint64(v.rest[:], math.Float64bits(v.number(v.at)))
			v.at, v.left = v.at+1, numberBytes
		}
		m := copy(b[n:], v.rest[numberBytes-v.left:])
		n, v.left = n+m, v.left-m
	}
	return n, nil
}

// flow is made while it is read.
type flow struct {
	more func() ([]byte, error) // makes some of it, which stays until the next call
	out  []byte                 // made, and not read yet
	err  error
}

// What flows is made of so many bytes at a time: fewer would take more CPU in all whom they pass, more would hold up the next.
const (
	flowLeast = 8 << 10 // unless it is the end
	flowMost  = 64 << 10
)

// Read implements io.Reader.
func (f *flow) Read(b []byte) (int, error) {
	for len(f.out) == 0 && f.err == nil {
		f.out, f.err = f.more()
	}
	n := copy(b, f.out)
	if f.out = f.out[n:]; n == 0 && len(b) > 0 {
		return 0, f.err
	}
	return n, nil
}

// inflow reads what flows in, as much at a time as is made of it.
func inflow(in []io.Reader) (all []*bufio.Reader) {
	for _, r := range in {
		all = append(all, bufio.NewReaderSize(r, flowMost))
	}
	return all
}

// sum adds vectors.
type sum struct {
	in  []*bufio.Reader
	buf []byte
}

func newSum(in []io.Reader) *flow {
	s := &sum{in: inflow(in), buf: make([]byte, flowMost)}
	return &flow{more: s.more}
}

// more adds as many numbers as all inputs have at hand.
func (s *sum) more() ([]byte, error) {
	n, ended := flowMost, 0
	for i, r := range s.in {
		switch b, err := r.Peek(flowLeast); {
		case len(b) >= numberBytes: // an error comes again
		case len(b) == 0 && errors.Is(err, io.EOF):
			ended++
		default:
			return nil, fmt.Errorf("input %d: %w", i, noEOF(err))
		}
		n = min(n, r.Buffered()/numberBytes*numberBytes)
	}
	switch {
	case ended == len(s.in):
		return nil, io.EOF
	case ended > 0:
		return nil, errors.New("vectors of different lengths")
	}
	out := s.buf[:n]
	clear(out)
	for _, r := range s.in {
		b, _ := r.Peek(n) // which is at hand
		add(out, b)
		_, _ = r.Discard(n)
	}
	return out, nil
}

func add(to, what []byte) {
	for i := 0; i+numberBytes <= len(to); i += numberBytes {
		a, b := to[i:i+numberBytes], what[i:i+numberBytes]
		binary.LittleEndian.PutUint64(a, math.Float64bits(math.Float64frombits(binary.LittleEndian.Uint64(a))+math.Float64frombits(binary.LittleEndian.Uint64(b))))
	}
}
