package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/s3"
	"github.com/fnwire/fnwire/fnlib/store/storetest"
	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/testserver"
	"github.com/fnwire/fnwire/internal/testserver/servertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func Example() {
	_, err := s3.Open(context.Background(), "s3://bucket/states?endpoint=minio:9000")
	fmt.Println(err)
	// Output:
	// store: s3://bucket/states?endpoint=minio:9000: the endpoint is no http: or https: URL; want s3://BUCKET/PREFIX?region=REGION, or ?endpoint=https://HOST for a service that is not Amazon's
}

func Example_store() {
	ctx := context.Background()
	s, err := s3.Open(ctx, "s3://bucket/states?region=eu-central-1")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = s.Close() }()
	fmt.Println(s.Put(ctx, "job/a", strings.NewReader("state"), store.PutOptions{TTL: time.Hour}))
}

// under is the server's URL with a prefix.
func under(server *testserver.Server, prefix string) string {
	return strings.Replace(server.URL, "?", "/"+prefix+"?", 1)
}

func open(t testing.TB, url string) *s3.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func opened(t testing.TB, url string) *s3.Store {
	t.Helper()
	s := open(t, url)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + i/s3.PartSize)
	}
	return b
}

func put(t testing.TB, s store.Store, key string, state []byte, ttl time.Duration) {
	t.Helper()
	if err := s.Put(t.Context(), key, bytes.NewReader(state), store.PutOptions{TTL: ttl}); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, s store.Store, key string, want []byte) {
	t.Helper()
	r, _, err := s.Get(t.Context(), key, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
}

// noUploads fails the test if parts of an upload are left.
func noUploads(t *testing.T, s *s3.Store) {
	t.Helper()
	out, err := s.Client().ListMultipartUploads(context.Background(), &sdk.ListMultipartUploadsInput{Bucket: aws.String(testserver.S3Bucket)})
	if err != nil || len(out.Uploads) != 0 {
		t.Errorf("%d uploads are left, %v", len(out.Uploads), err)
	}
}

// TestStore runs the suite, each test of it under a prefix of its own, beside foreign objects.
func TestStore(t *testing.T) {
	server := servertest.VersityGW(t)
	var n atomic.Int32
	storetest.Run(t, func(t *testing.T) store.Store {
		prefix := fmt.Sprintf("suite/%d", n.Add(1))
		s := open(t, under(server, prefix))
		for _, name := range []string{prefix + "-not/a!", prefix + "/foreign", "a!"} {
			_, err := s.Client().PutObject(t.Context(), &sdk.PutObjectInput{Bucket: aws.String(testserver.S3Bucket), Key: &name})
			if err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { noUploads(t, s); _ = s.Close() })
		return s
	})
}

func TestGolden(t *testing.T) {
	s := opened(t, under(servertest.VersityGW(t), "p"))
	s.SetClock(func() time.Time { return time.UnixMilli(1_700_000_000_000) })
	for _, size := range []int{3, s3.SmallSize, s3.PartSize, s3.PartSize + 1} {
		for ttl, want := range map[time.Duration]map[string]string{time.Second: {"fnwire-expires": "1700000001000"}, 0: nil} {
			put(t, s, "job/a", content(size), ttl)
			out, err := s.Client().GetObject(t.Context(), &sdk.GetObjectInput{Bucket: aws.String(testserver.S3Bucket), Key: aws.String("p/job/a!")})
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(out.Body)
			if err := errors.Join(err, out.Body.Close()); err != nil || !bytes.Equal(got, content(size)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if !maps.Equal(out.Metadata, want) {
				t.Errorf("metadata %v, want %v", out.Metadata, want)
			}
		}
	}
}

// TestExpiryIsExact holds that an object is there in its last millisecond and gone after it.
func TestExpiryIsExact(t *testing.T) {
	s := opened(t, servertest.VersityGW(t).URL)
	start := time.UnixMilli(1_700_000_000_000)
	now := start
	s.SetClock(func() time.Time { return now })
	for _, size := range []int{0, 10, 2 * s3.PartSize} {
		now = start
		put(t, s, "k", content(size), time.Minute)
		now = start.Add(time.Minute)
		read(t, s, "k", content(size))
		now = now.Add(time.Millisecond)
		if _, _, err := s.Get(t.Context(), "k", 0); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("get: %v", err)
		}
		err := s.List(t.Context(), "", func(i store.Info) bool { t.Errorf("listed: %v", i); return true })
		if err != nil {
			t.Error(err)
		}
	}
}

func TestDenied(t *testing.T) {
	server := servertest.VersityGW(t)
	put(t, opened(t, server.URL), "k", content(10), 0)
	for name, value := range map[string]string{"AWS_SECRET_ACCESS_KEY": "wrong-secret", "AWS_ACCESS_KEY_ID": "nobody"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			s := opened(t, server.URL)
			_, _, getErr := s.Get(t.Context(), "k", 0)
			for what, err := range map[string]error{
				"get":    getErr,
				"put":    s.Put(t.Context(), "k", bytes.NewReader(content(10)), store.PutOptions{}),
				"parts":  s.Put(t.Context(), "k", bytes.NewReader(content(2*s3.PartSize)), store.PutOptions{}),
				"delete": s.Delete(t.Context(), "k"),
				"list":   s.List(t.Context(), "", func(store.Info) bool { return true }),
			} {
				if !errors.Is(err, store.ErrDenied) || strings.Contains(err.Error(), "wrong-secret") {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
	read(t, opened(t, server.URL), "k", content(10))
}

// TestCredentials holds that they come from a profile and from a container's role as well, and that their lack is told at once.
func TestCredentials(t *testing.T) {
	server := servertest.VersityGW(t)
	put(t, opened(t, server.URL), "k", content(10), 0)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	if s, err := s3.Open(t.Context(), server.URL); !errors.Is(err, store.ErrDenied) || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
		t.Errorf("%v, %v", s, err)
	}
	t.Run("profile", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "credentials")
		text := fmt.Sprintf("[states]\naws_access_key_id=%s\naws_secret_access_key=%s\n", testserver.S3AccessKey, testserver.S3SecretKey)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
		t.Setenv("AWS_PROFILE", "states")
		read(t, opened(t, server.URL), "k", content(10))
	})
	t.Run("container", func(t *testing.T) {
		agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			_, _ = fmt.Fprintf(w, `{"AccessKeyId": %q, "SecretAccessKey": %q}`, testserver.S3AccessKey, testserver.S3SecretKey)
		}))
		defer agent.Close()
		t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.URL)
		read(t, opened(t, server.URL), "k", content(10))
	})
}

func TestNoBucket(t *testing.T) {
	server := servertest.VersityGW(t)
	s := opened(t, strings.Replace(server.URL, testserver.S3Bucket, "nosuch", 1))
	_, _, getErr := s.Get(t.Context(), "k", 0)
	for what, err := range map[string]error{
		"get":  getErr,
		"put":  s.Put(t.Context(), "k", bytes.NewReader(content(10)), store.PutOptions{}),
		"list": s.List(t.Context(), "", func(store.Info) bool { return true }),
	} {
		if err == nil || errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), "NoSuchBucket") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestTLS has requests go as they go to Amazon: by TLS, with a bundle of certificates that the environment names, the body not signed
// and its checksum at the end; and as they go to others.
func TestTLS(t *testing.T) {
	server := servertest.VersityGW(t)
	at, ca := servertest.TLS(t, server.Addr)
	t.Setenv("AWS_CA_BUNDLE", ca)
	url := strings.Replace(server.URL, "http://"+server.Addr, "https://"+at, 1)
	s := opened(t, url)
	for _, sums := range []aws.RequestChecksumCalculation{aws.RequestChecksumCalculationWhenSupported, aws.RequestChecksumCalculationWhenRequired} {
		s.SetChecksums(sums)
		for _, size := range []int{0, 10, s3.SmallSize, 3*s3.PartSize + 1} {
			put(t, s, "k", content(size), time.Hour)
			read(t, s, "k", content(size))
		}
	}
	other := opened(t, strings.Replace(url, "127.0.0.1", "localhost", 1))
	if err := other.Delete(t.Context(), "k"); err == nil {
		t.Error("a certificate for another name was taken")
	}
}

// TestServerDies holds that what is under way then fails, and says what.
func TestServerDies(t *testing.T) {
	server := servertest.VersityGW(t)
	s := opened(t, server.URL)
	put(t, s, "k", content(5*s3.PartSize), 0)
	r, _, err := s.Get(t.Context(), "k", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, r); err == nil {
		t.Errorf("read %d bytes from a server that is gone", n)
	}
	var dial *net.OpError
	if err := s.Put(t.Context(), "k", bytes.NewReader(content(10)), store.PutOptions{}); !errors.As(err, &dial) {
		t.Errorf("put: %v", err)
	}
}

// TestAnswers holds what is made of answers that the server here does not give, among them hostile ones.
func TestAnswers(t *testing.T) {
	var status int
	var code string
	header := map[string]string{}
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(status)
		if code != "" {
			_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>m</Message></Error>", code)
		} else {
			_, _ = io.WriteString(w, "0123456789")
		}
	}))
	defer fake.Close()
	for name, value := range testserver.S3Env() {
		t.Setenv(name, value)
	}
	s := opened(t, "s3://b?endpoint="+fake.URL)
	for _, c := range []struct {
		status int
		code   string
		want   error
	}{
		{403, "AccessDenied", store.ErrDenied},
		{400, "ExpiredToken", store.ErrDenied},
		{400, "EntityTooLarge", store.ErrFull},
		{403, "QuotaExceeded", store.ErrFull},
		{404, "NoSuchKey", store.ErrNotFound},
	} {
		status, code = c.status, c.code
		err := s.Put(t.Context(), "k", strings.NewReader("x"), store.PutOptions{})
		if !errors.Is(err, c.want) || !errors.Is(s3.KindOf(err), c.want) {
			t.Errorf("%d %s: %v", c.status, c.code, err)
		}
	}
	for _, contentRange := range []string{"", "bytes 0-9/*", "bytes 1-10/11", "bytes 0-9/5", "bytes 0-99999999999/100000000000", "bytes 0-10/11"} {
		status, code, header["Content-Range"] = http.StatusPartialContent, "", contentRange
		r, _, err := s.Get(t.Context(), "k", 0)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			_ = r.Close()
		}
		if err == nil {
			t.Errorf("%q: no error", contentRange)
		}
	}
}

func TestURLs(t *testing.T) {
	for raw, want := range map[string]string{
		"s3://b":                             "",
		"s3://b/":                            "",
		"s3://b/p/q/?region=eu-central-1":    "p/q/",
		"s3://b?endpoint=http://127.0.0.1:1": "",
		"s3://b/p?path-style=false":          "p/",
		"s3:///p":                            "bad",
		"http://b/p":                         "bad",
		"s3://key:secret@b/p":                "bad",
		"s3://b/p?secret=x":                  "bad",
		"s3://b/../p":                        "bad",
		"s3://b/" + strings.Repeat("p", 401): "bad",
		"s3://b?endpoint=host:1":             "bad",
		"s3://b?endpoint=http://u:secret@h":  "bad",
		"s3://b?path-style=no":               "bad",
		"s3://b#f":                           "bad",
	} {
		got, err := s3.Parse(raw)
		if err != nil {
			got = "bad"
		}
		if got != want || err != nil && strings.Contains(raw, "@b") && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %q, %v, want %q", raw, got, err, want)
		}
	}
}

func TestNoRegion(t *testing.T) {
	for name, value := range testserver.S3Env() {
		t.Setenv(name, value)
	}
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	if s, err := s3.Open(t.Context(), "s3://bucket"); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("%v, %v", s, err)
	}
}

// TestPartSize holds that what S3 takes, 5 TiB, has no more parts than it takes.
func TestPartSize(t *testing.T) {
	for size, want := range map[int64]int64{0: s3.PartSize, -1: s3.PartSize, 10_000 * s3.PartSize: s3.PartSize, 10_000*s3.PartSize + 1: s3.PartSize + 1, 5 << 40: 549_755_814} {
		if got := s3.PartSizeFor(size); got != want {
			t.Errorf("%d: %d, want %d", size, got, want)
		}
	}
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 5-5/6", "bytes 0-9/*", "bytes */10", "bytes 9-0/10", "bytes -1-3/9", "", "bytes 0-18446744073709551615/1"} {
		f.Add(s)
	}
	for _, s := range hostile.Strings("bytes 0-9/10") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, size, err := s3.ParseRange(s)
		if err == nil && (first < 0 || first > last || last >= size) {
			t.Errorf("%q: %d to %d of %d", s, first, last, size)
		}
	})
}
