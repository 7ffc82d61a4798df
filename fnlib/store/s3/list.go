package s3

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/internal/leaf"
)

// List asks for the objects' names, a page at a time, and for the metadata of each.
func (s *Store) List(ctx context.Context, prefix string, each func(store.Info) bool) error {
	pages := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: aws.String(s.prefix + leaf.Prefix(prefix))})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return s.fail(ctx, "list", err)
		}
		var names []string
		for _, object := range page.Contents {
			names = append(names, aws.ToString(object.Key))
		}
		infos, err := s.infos(ctx, names)
		if err != nil {
			return s.fail(ctx, "list", err)
		}
		for _, info := range infos {
			if info.Key != "" && !each(info) {
				return nil
			}
		}
	}
	return nil
}

// infos describes objects. It has no key for what is not fnwire's, has expired or is gone.
func (s *Store) infos(ctx context.Context, names []string) ([]store.Info, error) {
	infos := make([]store.Info, len(names))
	asking, ctx := errgroup.WithContext(ctx)
	asking.SetLimit(heads)
	for i, name := range names {
		key, ok := leaf.Decode(strings.TrimPrefix(name, s.prefix))
		if !ok || store.CheckKey(key) != nil {
			continue
		}
		asking.Go(func() error {
			head, err := s.head(ctx, &name)
			if err != nil && !absent(err) {
				return err
			}
			if err == nil && !s.expired(head.Metadata) {
				infos[i] = store.Info{Key: key, Size: aws.ToInt64(head.ContentLength)}
			}
			return nil
		})
	}
	return infos, asking.Wait()
}
