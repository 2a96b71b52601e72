package mem_test

import (
	"slices"
	"testing"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/mem"
	"github.com/tierlog/tierlog/objstore/objtest"
)

func TestConformance(t *testing.T) {
	objtest.Conformance(t, func(*testing.T) objstore.Store { return mem.New() })
}

func TestTamper(t *testing.T) {
	s := mem.New()
	v, err := s.Create(t.Context(), "a", objstore.Bytes([]byte("abc")))
	if err != nil {
		t.Fatal(err)
	}
	if !s.Tamper("a", func(b []byte) []byte { b[0] ^= 1; return b[:2] }) || s.Tamper("b", slices.Clone) {
		t.Fatal("tamper reported the wrong keys")
	}
	got, info, err := objstore.ReadAll(t.Context(), s, "a", 10)
	if err != nil || string(got) != "`b" || info.Version != v {
		t.Errorf("read %q, %+v, %v", got, info, err)
	}
	if n, size := s.Size(); n != 1 || size != 2 || !slices.Equal(s.Keys(), []string{"a"}) {
		t.Errorf("%d objects of %d bytes, keys %v", n, size, s.Keys())
	}
}
