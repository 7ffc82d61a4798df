// Package s3 keeps states in a bucket of Amazon S3, or of any service that speaks its protocol.
//
//	s, err := s3.Open(ctx, "s3://bucket/prefix?region=eu-central-1")
//	s, err := s3.Open(ctx, "s3://bucket?endpoint=http://host:7070")
//
// Credentials come the ordinary AWS way: from the environment, the shared files and their profiles, or the role of the container or
// instance. So does the region, if the URL has none; with an endpoint of one's own it is us-east-1 then. ?endpoint= is the base of a service
// that is not Amazon's, addressed by path-style URLs; ?path-style=false has the bucket in the host name. The bucket must exist. What its policy must allow:
//
//	s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload on the objects, s3:ListBucket on the bucket
//
// An object is named by the prefix, a slash, and the key as package leaf writes it, for there are gateways that keep objects as files.
// Up to 8 MiB it is put by one request, and beyond in parts of that size, three at once; parts of an upload that failed are removed. It is got in
// ranges of that size, the first as it comes and up to three more at once, each on condition that the object is still the one which the first was of.
// So a Put or a Get holds 32 MiB at most, and 64 KiB for what is smaller than that. A Put without PutOptions.Size takes 78 GiB at most.
//
// An object that expires has metadata fnwire-expires, in milliseconds since 1970, counted from when its first byte was sent. Get and List
// honour it: List asks for each object's, 16 at once. It is the bucket that removes such objects, if told to:
//
//	{"Rules": [{"ID": "fnwire", "Status": "Enabled", "Filter": {"Prefix": "prefix/"}, "Expiration": {"Days": 2},
//	  "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}]}
//
// (aws s3api put-bucket-lifecycle-configuration; it also removes parts that killed writers left.)
package s3
