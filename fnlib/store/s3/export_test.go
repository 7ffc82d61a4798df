package s3

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

const (
	SmallSize = smallSize
	PartSize  = partSize
)

func (s *Store) Client() *s3.Client            { return s.client }
func (s *Store) SetClock(now func() time.Time) { s.now = now }

func (s *Store) SetChecksums(when aws.RequestChecksumCalculation) {
	s.client = s3.New(s.client.Options(), func(o *s3.Options) { o.RequestChecksumCalculation = when })
}

func ParseRange(s string) (first, last, size int64, err error) { return parseRange(s) }
func PartSizeFor(size int64) int64                             { return partSizeFor(size) }
func KindOf(err error) error                                   { return kindOf(err) }

// Parse returns the prefix.
func Parse(rawURL string) (string, error) {
	s, _, err := parse(rawURL)
	if err != nil {
		return "", err
	}
	return s.prefix, nil
}
