package minio_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/minio"
	"github.com/tierlog/tierlog/objstore/objtest"
	"github.com/tierlog/tierlog/test/miniotest"
)

func config(s *miniotest.Server, bucket, prefix string) minio.Config {
	return minio.Config{Endpoint: s.Addr, Bucket: bucket, Prefix: prefix, AccessKey: s.AccessKey, SecretKey: s.SecretKey}
}

func open(t *testing.T, c minio.Config) objstore.Store {
	t.Helper()
	s, err := minio.Open(c)
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
