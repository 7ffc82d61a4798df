package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/internal/leaf"
	"github.com/fnwire/fnwire/fnlib/store/internal/source"
)

const (
	smallSize     = 64 << 10 // bytes that a Put begins with
	partSize      = 8 << 20  // bytes
	maxParts      = 10_000   // that S3 takes
	ahead         = 3        // parts under way beside the one that is filled, or read
	heads         = 16       // requests of List at once
	maxPrefix     = 400      // bytes: a name may have 1,024
	abortWithin   = 5 * time.Second
	idleFor       = 5 * time.Second // by the wall clock: a connection is not used again after a freeze, in which a NAT may have forgotten it
	expiresMeta   = "fnwire-expires"
	defaultRegion = "us-east-1" // of services that are not Amazon's
)

// Store is a bucket, or what has a prefix in it. Its methods may be called concurrently.
type Store struct {
	client *s3.Client
	http   *http.Client
	bucket string
	prefix string // ends in a slash, or is empty
	url    string
	now    func() time.Time
	small  sync.Pool // *[smallSize]byte
	parts  sync.Pool // *[partSize]byte
}

var _ store.Store = (*Store)(nil)

// Open finds credentials for a bucket, which it does not touch. ErrDenied: there are none.
func Open(ctx context.Context, rawURL string) (*Store, error) {
	s, opt, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	cfg, err := config.LoadDefaultConfig(ctx, opt.load()...)
	if err != nil {
		return nil, s.fail(ctx, "open", err)
	}
	if cfg.Region == "" {
		if opt.endpoint == "" && cfg.BaseEndpoint == nil {
			return nil, s.fail(ctx, "open", errors.New("no region: add ?region= to the URL or set AWS_REGION"))
		}
		cfg.Region = defaultRegion
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		return nil, s.fail(ctx, "open", fmt.Errorf(
			"%w: no credentials in the environment (AWS_ACCESS_KEY_ID), a profile or a role: %w", store.ErrDenied, err))
	}
	s.http = ownClient(cfg.HTTPClient)
	s.client = s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.HTTPClient = s.http
		o.ContinueHeaderThresholdBytes = -1 // a round trip for each part
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		if opt.endpoint != "" {
			o.BaseEndpoint = &opt.endpoint
		}
		if o.BaseEndpoint != nil {
			o.UsePathStyle = true
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired // not every service knows them
		}
		if opt.pathStyle != nil {
			o.UsePathStyle = *opt.pathStyle
		}
	})
	return s, nil
}

// ownClient makes a client of the SDK's kind, with its proxies and certificates, whose connections can be closed.
func ownClient(from aws.HTTPClient) *http.Client {
	b, ok := from.(*awshttp.BuildableClient)
	if !ok {
		b = awshttp.NewBuildableClient()
	}
	b = b.WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost, t.IdleConnTimeout = heads, idleFor
	})
	if c, ok := b.Freeze().(*http.Client); ok {
		return c
	}
	return &http.Client{Transport: b.GetTransport()}
}

// options are what a URL says beside bucket and prefix.
type options struct {
	endpoint, region string
	pathStyle        *bool
}

func (o options) load() (opts []func(*config.LoadOptions) error) {
	if o.region != "" {
		opts = append(opts, config.WithRegion(o.region))
	}
	return opts
}

// parse returns a store that lacks only its client.
func parse(rawURL string) (*Store, options, error) {
	var opt options
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, opt, errors.New("store: the URL of a bucket cannot be parsed")
	}
	bad := func(why string) error {
		return fmt.Errorf("store: %s: %s; want s3://BUCKET/PREFIX?region=REGION, or ?endpoint=https://HOST for a service that is not Amazon's", u.Redacted(), why)
	}
	if u.Scheme != "s3" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, opt, bad("it names no bucket, or holds credentials, which come from the environment")
	}
	prefix := strings.Trim(u.Path, "/")
	if len(prefix) > maxPrefix || prefix != "" && store.CheckKey(prefix) != nil {
		return nil, opt, bad("the prefix is too long or has other signs than those of keys")
	}
	for name, values := range u.Query() {
		value := values[len(values)-1]
		switch name {
		case "endpoint":
			e, err := url.Parse(value)
			if err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" || e.User != nil {
				return nil, opt, bad("the endpoint is no http: or https: URL")
			}
			opt.endpoint = value
		case "region":
			opt.region = value
		case "path-style":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return nil, opt, bad("path-style is true or false")
			}
			opt.pathStyle = &on
		default:
			return nil, opt, bad("the option " + name + " is not known")
		}
	}
	if prefix != "" {
		prefix += "/"
	}
	s := &Store{bucket: u.Host, prefix: prefix, url: rawURL, now: time.Now}
	s.small.New = func() any { return new([smallSize]byte) }
	s.parts.New = func() any { return new([partSize]byte) }
	return s, opt, nil
}

// String returns the URL.
func (s *Store) String() string { return s.url }

// Close closes connections.
func (s *Store) Close() error {
	s.http.CloseIdleConnections()
	return nil
}

func (s *Store) name(key string) *string { return aws.String(s.prefix + leaf.Encode(key)) }

// Delete removes an object.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: s.name(key)})
	if err != nil && !absent(err) {
		return s.fail(ctx, "delete "+key, err)
	}
	return nil
}

// fail says what failed, and of which kind it is.
func (s *Store) fail(ctx context.Context, what string, err error) error {
	var reader *source.Error
	ended := ctx.Err()
	switch kind := kindOf(err); {
	case errors.As(err, &reader):
	case ended != nil && !errors.Is(err, ended):
		err = fmt.Errorf("%w: %w", ended, err)
	case kind != nil && !errors.Is(err, kind):
		err = fmt.Errorf("%w: %w", kind, err)
	}
	return fmt.Errorf("store: %s: %s: %w", s.url, what, err)
}

// kindOf returns the store's error for one of the service, or nil.
func kindOf(err error) error {
	code, status := codeOf(err)
	switch {
	case absent(err):
		return store.ErrNotFound
	case slices.Contains([]string{"EntityTooLarge", "QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity"}, code), status == http.StatusInsufficientStorage:
		return store.ErrFull
	case slices.Contains([]string{"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "XAdminUserNotFound"}, code), status == http.StatusForbidden, status == http.StatusUnauthorized:
		return store.ErrDenied
	}
	return nil
}

// absent tells whether the service says that there is no such object. HEAD has no body, and so no code for a bucket that is not there.
func absent(err error) bool {
	code, _ := codeOf(err)
	return code == "NoSuchKey" || code == "NotFound"
}

func codeOf(err error) (code string, status int) {
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		status = response.HTTPStatusCode()
	}
	return code, status
}
