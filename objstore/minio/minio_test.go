package minio_test

import (
	"testing"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/minio"
	"github.com/tierlog/tierlog/test/s3test"
)

func open(t testing.TB, target s3test.Target) objstore.Store {
	t.Helper()
	s, err := minio.Open(minio.Config{
		Endpoint: target.Addr, Bucket: target.Bucket, Prefix: target.Prefix, AccessKey: target.AccessKey, SecretKey: target.SecretKey,
		SignPayload: target.SignPayload, Timeout: target.Timeout, Secure: target.CAFile != "", CAFile: target.CAFile,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) { s3test.Conformance(t, open) }

func TestFailures(t *testing.T) { s3test.Failures(t, open) }

func BenchmarkStore(b *testing.B) { s3test.Benchmark(b, open) }
