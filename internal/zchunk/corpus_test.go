package zchunk

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"go/build"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

const corpusSize = 4 << 20

// corpus is what functions hand to one another, each of a few MiB, the same on every run but for the text, which is
// the source of Go's net/http.
func corpus(t testing.TB) []sample {
	r := rand.New(rand.NewPCG(1, 2))
	return []sample{
		{"text", goSource(t)},
		{"json", records(t, r)},
		{"float64 counts", floats(func(i int) float64 { return math.Floor(r.ExpFloat64() * 20) })},
		{"float64 smooth", floats(func(i int) float64 { return 20 + 5*math.Sin(float64(i/2048)/300)*math.Cos(float64(i%2048)/200) })},
		{"float64 random", floats(func(i int) float64 { return r.NormFloat64() })},
		{"jpeg", photos(t, r)},
		{"random", randomBytes(corpusSize)},
	}
}

type sample struct {
	name string
	data []byte
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b) // never fails
	return b
}

func goSource(t testing.TB) []byte {
	var b []byte
	for _, dir := range []string{"net/http", "net", "runtime"} {
		files, err := filepath.Glob(filepath.Join(build.Default.GOROOT, "src", dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, text...)
		}
	}
	if len(b) < corpusSize {
		t.Fatalf("%d bytes of Go's source, want %d", len(b), corpusSize)
	}
	return b[:corpusSize]
}

func records(t testing.TB, r *rand.Rand) []byte {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	for buf.Len() < corpusSize {
		err := e.Encode(map[string]any{
			"id": fmt.Sprintf("%016x", r.Uint64()), "user": r.IntN(50_000), "at": 1_700_000_000 + buf.Len(),
			"event": []string{"view", "click", "purchase", "login"}[r.IntN(4)], "price": math.Round(r.ExpFloat64()*1e4) / 100,
			"tags": []string{"eu-central-1", "mobile", "beta"}[:r.IntN(4)], "position": []float64{r.Float64(), r.Float64()},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()[:corpusSize]
}

func floats(value func(i int) float64) []byte {
	b := make([]byte, 0, corpusSize)
	for i := range corpusSize / 8 {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(value(i)))
	}
	return b
}

// photos are gradients with the noise of a camera.
func photos(t testing.TB, r *rand.Rand) []byte {
	var buf bytes.Buffer
	for buf.Len() < corpusSize {
		m := image.NewRGBA(image.Rect(0, 0, 1024, 768))
		tilt := r.Float64()
		for y := range 768 {
			for x := range 1024 {
				v := 100 + 80*math.Sin(float64(x)/200*tilt+float64(y)/150)
				n := func() uint8 { return uint8(min(255, max(0, v+8*r.NormFloat64()))) }
				m.SetRGBA(x, y, color.RGBA{n(), n(), n(), 255})
			}
		}
		if err := jpeg.Encode(&buf, m, &jpeg.Options{Quality: 90}); err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()[:corpusSize]
}
