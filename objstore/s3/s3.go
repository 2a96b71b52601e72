// Package s3 is an object store on Amazon S3, and on what else speaks S3, through aws-sdk-go-v2.
//
// Invariants: those of package s3wire. In particular, the SDK's retries are off, and a second request within one call
// would be refused.
//
// Credentials, region and endpoint come from the SDK's usual chain (environment, shared files, container and instance
// roles) unless Config says otherwise. Bodies are checked by their CRC-32C (a signed header). Their SHA-256 is not
// computed, over plain HTTP neither, unless Config.SignPayload asks for it.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/logging"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/internal/s3wire"
)

// Config says which bucket, and how to get in.
type Config struct {
	// Bucket must exist. Directory buckets (S3 Express) are refused: they do not list in order.
	Bucket string
	// Prefix is put before every key, with a slash between; empty for the whole bucket.
	Prefix string
	// Region; empty: from the SDK's chain, or us-east-1 where an endpoint is set.
	Region string
	// Endpoint is the URL of another store than Amazon's, addressed with the bucket in the path.
	// Empty: from the SDK's chain (AWS_ENDPOINT_URL_S3), or Amazon's.
	Endpoint string
	// AccessKey and SecretKey; both empty: from the SDK's chain.
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

var (
	validBucket = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	validRegion = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9-]{0,62}$`)
)

// Validate names the first field that is wrong, its value (not a secret's) and what is allowed.
func (c Config) Validate() error {
	switch {
	case !validBucket.MatchString(c.Bucket):
		return fmt.Errorf("bucket: %q: 3 to 63 of a-z, 0-9, dots and dashes are allowed", c.Bucket)
	case strings.HasSuffix(c.Bucket, "--x-s3"):
		return fmt.Errorf("bucket: %q is a directory bucket, which does not list in order; a general purpose bucket is needed", c.Bucket)
	case c.Region != "" && !validRegion.MatchString(c.Region):
		return fmt.Errorf("region: %q is not a region's name, such as eu-central-1", c.Region)
	case (c.AccessKey == "") != (c.SecretKey == ""):
		return errors.New("credentials: the access key and the secret key must both be given, or neither")
	}
	if err := checkEndpoint(c.Endpoint); err != nil {
		return err
	}
	if err := s3wire.CheckPrefix(c.Prefix); err != nil {
		return err
	}
	return c.limits().Validate()
}

func (c Config) limits() s3wire.Limits {
	return s3wire.Limits{MaxConns: c.MaxConns, Timeout: c.Timeout}
}

func checkEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return errors.New("endpoint: must be a URL such as http://127.0.0.1:9000")
	case u.User != nil:
		return errors.New("endpoint: must hold no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "":
		return fmt.Errorf("endpoint: %q: must be http:// or https:// with a host and nothing behind it", endpoint)
	}
	return nil
}

// Open returns the store. It looks for credentials, which may take requests, but makes none to the bucket: one that is
// missing or out of reach shows at the first call.
func Open(ctx context.Context, c Config) (objstore.Store, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("s3 store: %w", err)
	}
	cfg, err := c.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("s3 store: %w", err)
	}
	tr, err := c.transport(cfg)
	if err != nil {
		return nil, fmt.Errorf("s3 store: %w", err)
	}
	api := s3.NewFromConfig(cfg, func(o *s3.Options) {
		if c.Endpoint != "" {
			o.BaseEndpoint = aws.String(c.Endpoint)
		}
		o.UsePathStyle = o.BaseEndpoint != nil
		if o.Region == "" && o.BaseEndpoint != nil {
			o.Region = "us-east-1"
		}
		o.HTTPClient = s3wire.HTTPClient(tr)
		o.Retryer = aws.NopRetryer{}
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableS3ExpressSessionAuth = aws.Bool(true)
		o.ContinueHeaderThresholdBytes = -1
		o.ClientLogMode = 0
		o.Logger = logging.Nop{}
	})
	if api.Options().Region == "" {
		return nil, errors.New("s3 store: region: none is set; add ?region= to the URL, or set AWS_REGION")
	}
	cl := &client{api: api, bucket: c.Bucket, close: tr.CloseIdleConnections}
	if !c.SignPayload {
		cl.putOptions = append(cl.putOptions, s3.WithAPIOptions(v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware))
	}
	return s3wire.New(cl, s3wire.Config{Prefix: c.Prefix, Limits: c.limits()}), nil
}

// load runs the SDK's chain and sees to it that there are credentials.
func (c Config) load(ctx context.Context) (aws.Config, error) {
	opts := []func(*config.LoadOptions) error{config.WithLogger(logging.Nop{})}
	if c.Region != "" {
		opts = append(opts, config.WithRegion(c.Region))
	}
	if c.AccessKey != "" {
		opts = append(opts, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, "")))
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return cfg, fmt.Errorf("settings of the AWS SDK: %w", err)
	}
	if cfg.Credentials == nil {
		return cfg, fmt.Errorf("%w: no credentials", objstore.ErrDenied)
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		if ctx.Err() != nil {
			return cfg, fmt.Errorf("credentials: %w", ctx.Err())
		}
		return cfg, fmt.Errorf("%w: no credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role): %w", objstore.ErrDenied, err)
	}
	return cfg, nil
}

// transport keeps what the chain has set (AWS_CA_BUNDLE). Proxies of the environment serve Amazon's endpoints;
// an endpoint that was given is meant as it is written.
func (c Config) transport(cfg aws.Config) (*http.Transport, error) {
	base, ok := cfg.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		base = awshttp.NewBuildableClient()
	}
	tr := base.GetTransport()
	if c.Endpoint != "" {
		tr.Proxy = nil
	}
	c.limits().Tune(tr)
	return tr, s3wire.Trust(tr, c.CAFile)
}

// client implements s3wire.Client.
type client struct {
	api        *s3.Client
	bucket     string
	putOptions []func(*s3.Options)
	close      func()
}

// Get implements s3wire.Client.
func (c *client) Get(ctx context.Context, key, byteRange string) (s3wire.Body, error) {
	out, err := c.api.GetObject(ctx, &s3.GetObjectInput{Bucket: &c.bucket, Key: &key, Range: &byteRange})
	if err != nil {
		return nil, err
	}
	return out.Body, nil
}

// Head implements s3wire.Client.
func (c *client) Head(ctx context.Context, key string) error {
	_, err := c.api.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &c.bucket, Key: &key})
	return err
}

// Put implements s3wire.Client.
func (c *client) Put(ctx context.Context, key string, put s3wire.Put) error {
	in := &s3.PutObjectInput{
		Bucket:         &c.bucket,
		Key:            &key,
		Body:           put.Body,
		ContentLength:  &put.Size,
		ContentType:    aws.String("application/octet-stream"),
		ChecksumCRC32C: &put.CRC32C,
	}
	if put.Old == "" {
		in.IfNoneMatch = aws.String("*")
	} else {
		in.IfMatch = aws.String(s3wire.ETag(put.Old))
	}
	_, err := c.api.PutObject(ctx, in, c.putOptions...)
	return err
}

// Delete implements s3wire.Client.
func (c *client) Delete(ctx context.Context, keys []string) ([]s3wire.Refusal, error) {
	if len(keys) == 1 {
		_, err := c.api.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &c.bucket, Key: &keys[0]})
		return nil, err
	}
	objects := make([]types.ObjectIdentifier, len(keys))
	for i := range keys {
		objects[i].Key = &keys[i]
	}
	out, err := c.api.DeleteObjects(ctx, &s3.DeleteObjectsInput{
		Bucket: &c.bucket,
		Delete: &types.Delete{Objects: objects, Quiet: aws.Bool(true)},
	})
	if err != nil {
		return nil, err
	}
	var refused []s3wire.Refusal
	for _, e := range out.Errors {
		refused = append(refused, s3wire.Refusal{Key: aws.ToString(e.Key), Code: aws.ToString(e.Code), Message: aws.ToString(e.Message)})
	}
	return refused, nil
}

// List implements s3wire.Client.
func (c *client) List(ctx context.Context, prefix, after string, limit int) ([]objstore.Info, bool, error) {
	in := &s3.ListObjectsV2Input{Bucket: &c.bucket, Prefix: &prefix, MaxKeys: aws.Int32(int32(limit))}
	if after != "" {
		in.StartAfter = &after
	}
	out, err := c.api.ListObjectsV2(ctx, in)
	if err != nil {
		return nil, false, err
	}
	objects := make([]objstore.Info, 0, len(out.Contents))
	for _, o := range out.Contents {
		objects = append(objects, s3wire.Listed(aws.ToString(o.Key), aws.ToInt64(o.Size), aws.ToString(o.ETag), aws.ToTime(o.LastModified)))
	}
	return objects, aws.ToBool(out.IsTruncated), nil
}

// Close implements s3wire.Client.
func (c *client) Close() { c.close() }
