// Package minio is an object store on MinIO, and on what else speaks S3, through minio-go.
//
// Invariants: those of package s3wire. In particular, minio-go's retries are off, and a second request within one call
// would be refused.
//
// Bodies are checked by their CRC-32C (a signed header). Their SHA-256 is not computed, over plain HTTP neither, unless
// Config.SignPayload asks for it.
package minio

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/internal/s3wire"
)

// DefaultRegion is what MinIO calls its region unless it is told otherwise.
const DefaultRegion = "us-east-1"

// Config says which bucket, and how to get in.
type Config struct {
	// Endpoint is HOST or HOST:PORT.
	Endpoint string
	// Secure selects HTTPS.
	Secure bool
	// Bucket must exist.
	Bucket string
	// Prefix is put before every key, with a slash between; empty for the whole bucket.
	Prefix string
	// Region is signed with. Default DefaultRegion.
	Region string
	// AccessKey and SecretKey; both empty: MINIO_ACCESS_KEY and MINIO_SECRET_KEY, or MINIO_ROOT_USER and
	// MINIO_ROOT_PASSWORD, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, from the environment.
	AccessKey, SecretKey string
	// SignPayload sends the SHA-256 of every body, for stores that insist on it.
	SignPayload bool
	// MaxConns bounds the open connections. Default 128.
	MaxConns int
	// Timeout bounds one request; large bodies get more. Default 30 s.
	Timeout time.Duration
	// CAFile has PEM certificates of authorities to trust for HTTPS, besides the system's.
	CAFile string
}

// Validate names the first field that is wrong, its value (not a secret's) and what is allowed.
func (c Config) Validate() error {
	if err := checkEndpoint(c.Endpoint); err != nil {
		return fmt.Errorf("endpoint: %q %w", c.Endpoint, err)
	}
	if err := s3utils.CheckValidBucketNameStrict(c.Bucket); err != nil {
		return fmt.Errorf("bucket: %q: 3 to 63 of a-z, 0-9, dots and dashes are allowed: %w", c.Bucket, err)
	}
	if err := s3wire.CheckPrefix(c.Prefix); err != nil {
		return err
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		return errors.New("credentials: the access key and the secret key must both be given, or neither")
	}
	return c.limits().Validate()
}

func (c Config) limits() s3wire.Limits {
	return s3wire.Limits{MaxConns: c.MaxConns, Timeout: c.Timeout}
}

func checkEndpoint(endpoint string) error {
	u, err := url.Parse("http://" + endpoint)
	if err != nil || u.Host != endpoint || u.Hostname() == "" {
		return errors.New("must be HOST or HOST:PORT")
	}
	if _, port, err := net.SplitHostPort(endpoint); err == nil {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return errors.New("must have a port from 1 to 65535")
		}
	}
	return nil
}

// Open returns the store. It makes no request: a bucket that is missing or out of reach shows at the first call.
func Open(c Config) (objstore.Store, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("minio store: %w", err)
	}
	creds := credentials.NewStaticV4(c.AccessKey, c.SecretKey, "")
	if c.AccessKey == "" {
		creds = credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvMinio{}, &credentials.EnvAWS{}})
		if v, err := creds.GetWithContext(nil); err != nil || v.AccessKeyID == "" {
			return nil, fmt.Errorf("minio store: %w: no credentials: give KEY:SECRET@ in the URL, or MINIO_ACCESS_KEY and MINIO_SECRET_KEY in the environment", objstore.ErrDenied)
		}
	}
	region := c.Region
	if region == "" {
		region = DefaultRegion
	}
	tr := &http.Transport{} // no proxy: the endpoint is meant as it is written
	c.limits().Tune(tr)
	if err := s3wire.Trust(tr, c.CAFile); err != nil {
		return nil, fmt.Errorf("minio store: %w", err)
	}
	core, err := minio.NewCore(c.Endpoint, &minio.Options{
		Creds:      creds,
		Secure:     c.Secure,
		Region:     region, // else minio-go would ask for it
		Transport:  s3wire.Guard(tr),
		MaxRetries: 1, // tries, not retries
	})
	if err != nil {
		return nil, fmt.Errorf("minio store: endpoint: %q: %w", c.Endpoint, err)
	}
	cl := &client{core: core, bucket: c.Bucket, sign: c.SignPayload, close: tr.CloseIdleConnections}
	return s3wire.New(cl, s3wire.Config{Prefix: c.Prefix, Limits: c.limits()}), nil
}

// client implements s3wire.Client.
type client struct {
	core   *minio.Core
	bucket string
	sign   bool
	close  func()
}

// Get implements s3wire.Client.
func (c *client) Get(ctx context.Context, key, byteRange string) (s3wire.Body, error) {
	var opts minio.GetObjectOptions
	opts.Set("Range", byteRange)
	body, _, _, err := c.core.GetObject(ctx, c.bucket, key, opts)
	return body, err
}

// Head implements s3wire.Client.
func (c *client) Head(ctx context.Context, key string) error {
	_, err := c.core.StatObject(ctx, c.bucket, key, minio.StatObjectOptions{})
	return err
}

// Put implements s3wire.Client.
func (c *client) Put(ctx context.Context, key string, put s3wire.Put) error {
	opts := minio.PutObjectOptions{
		DisableContentSha256: true, // no chunked encoding with a hash per chunk
		UserMetadata:         map[string]string{"x-amz-checksum-crc32c": put.CRC32C},
	}
	if put.Old == "" {
		opts.SetMatchETagExcept("*")
	} else {
		opts.SetMatchETag(string(put.Old))
	}
	sha := ""
	if c.sign {
		h := sha256.New()
		if _, err := io.Copy(h, put.Body); err != nil {
			return err
		}
		sha = hex.EncodeToString(h.Sum(nil))
	}
	_, err := c.core.PutObject(ctx, c.bucket, key, put.Body, put.Size, "", sha, opts)
	return err
}

// Delete implements s3wire.Client.
func (c *client) Delete(ctx context.Context, keys []string) ([]s3wire.Refusal, error) {
	if len(keys) == 1 {
		return nil, c.core.RemoveObject(ctx, c.bucket, keys[0], minio.RemoveObjectOptions{})
	}
	objects := make([]minio.ObjectInfo, len(keys))
	for i, key := range keys {
		objects[i].Key = key
	}
	results, err := c.core.RemoveObjectsWithIter(ctx, c.bucket, slices.Values(objects), minio.RemoveObjectsOptions{})
	if err != nil {
		return nil, err
	}
	var refused []s3wire.Refusal
	done := 0
	for r := range results {
		var answer minio.ErrorResponse
		switch {
		case r.Err == nil:
			done++
		case errors.As(r.Err, &answer) && answer.StatusCode == 0:
			refused = append(refused, s3wire.Refusal{Key: r.ObjectName, Code: answer.Code, Message: answer.Message})
		default:
			return nil, r.Err // the request failed, not a key
		}
	}
	if done+len(refused) < len(keys) { // the iterator ends silently when the context does
		return refused, fmt.Errorf("%d of %d keys were answered", done+len(refused), len(keys))
	}
	return refused, nil
}

// List implements s3wire.Client.
func (c *client) List(ctx context.Context, prefix, after string, limit int) ([]objstore.Info, bool, error) {
	noOwner := false
	objects := make([]objstore.Info, 0, limit)
	for o := range c.core.ListObjectsIter(ctx, c.bucket, minio.ListObjectsOptions{
		Prefix: prefix, StartAfter: after, MaxKeys: limit, Recursive: true, FetchOwner: &noOwner,
	}) {
		if o.Err != nil {
			if s3wire.Stopped(ctx) { // asked for the next page
				return objects, true, nil
			}
			return nil, false, o.Err
		}
		objects = append(objects, s3wire.Listed(o.Key, o.Size, o.ETag, o.LastModified))
	}
	return objects, false, ctx.Err() // the iterator ends silently when the context does
}

// Close implements s3wire.Client.
func (c *client) Close() { c.close() }
