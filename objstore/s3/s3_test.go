package s3_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/objtest"
	"github.com/tierlog/tierlog/objstore/s3"
	"github.com/tierlog/tierlog/test/miniotest"
)

func config(s *miniotest.Server, bucket, prefix string) s3.Config {
	return s3.Config{Endpoint: "http://" + s.Addr, Region: "us-east-1", Bucket: bucket, Prefix: prefix, AccessKey: s.AccessKey, SecretKey: s.SecretKey}
}

func open(t *testing.T, c s3.Config) objstore.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	server := miniotest.Start(t)
	var n atomic.Int64
	t.Run("bucket", func(t *testing.T) {
		objtest.Conformance(t, func(t *testing.T) objstore.Store {
			return open(t, config(server, server.Bucket(t, fmt.Sprintf("bucket%d", n.Add(1))), ""))
		})
	})
	t.Run("prefix", func(t *testing.T) {
		bucket := server.Bucket(t, "shared")
		objtest.Conformance(t, func(t *testing.T) objstore.Store {
			return open(t, config(server, bucket, fmt.Sprintf("some/prefix/%d", n.Add(1))))
		})
	})
}
