package s3_test

import (
	"testing"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/s3"
	"github.com/tierlog/tierlog/test/s3test"
)

func open(t testing.TB, target s3test.Target) objstore.Store {
	t.Helper()
	scheme := "http://"
	if target.CAFile != "" {
		scheme = "https://"
	}
	s, err := s3.Open(t.Context(), s3.Config{
		Endpoint: scheme + target.Addr, Region: "us-east-1",
		Bucket: target.Bucket, Prefix: target.Prefix, AccessKey: target.AccessKey, SecretKey: target.SecretKey,
		SignPayload: target.SignPayload, Timeout: target.Timeout, CAFile: target.CAFile,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) { s3test.Conformance(t, open) }

func TestFailures(t *testing.T) { s3test.Failures(t, open) }

func BenchmarkStore(b *testing.B) { s3test.Benchmark(b, open) }
