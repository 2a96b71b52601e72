package objtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/tierlog/tierlog/objstore"
)

// create makes objects that hold their own key.
func create(t *testing.T, s objstore.Store, keys ...string) {
	t.Helper()
	work := make(chan string)
	errs := make(chan error, len(keys))
	var wg sync.WaitGroup
	for range min(16, len(keys)) {
		wg.Go(func() {
			for key := range work {
				if _, err := s.Create(t.Context(), key, objstore.Bytes([]byte(key))); err != nil {
					errs <- err
				}
			}
		})
	}
	for _, key := range keys {
		work <- key
	}
	close(work)
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
}

func wantKeys(t *testing.T, s objstore.Store, prefix string, want ...string) {
	t.Helper()
	if got := listAll(t, s, prefix, 0); !slices.Equal(got, want) {
		t.Errorf("keys under %q are %q, want %q", prefix, got, want)
	}
}

// listAll pages through a prefix and checks the pages.
func listAll(t *testing.T, s objstore.Store, prefix string, limit int) []string {
	t.Helper()
	var keys []string
	after := ""
	for {
		page, err := s.List(t.Context(), prefix, after, limit)
		noError(t, err)
		for _, o := range page.Objects {
			if o.Key <= after || !strings.HasPrefix(o.Key, prefix) {
				t.Fatalf("list of %q after %q returned %q", prefix, after, o.Key)
			}
			after = o.Key
			keys = append(keys, o.Key)
		}
		if len(page.Objects) > objstore.ListLimit(limit) {
			t.Fatalf("a page of limit %d has %d objects", limit, len(page.Objects))
		}
		if !page.More {
			return keys
		}
		if len(page.Objects) == 0 {
			t.Fatalf("an empty page of %q after %q says that there is more", prefix, after)
		}
	}
}

// orderKeys are such that folder by folder order differs from the order of whole keys.
var orderKeys = []string{
	"a", "a!", "a-b", "a.b/c", "a0", "b/1", "b/1.x", "b/10", "b/2", "b/2x/1", "b/3/4/5/6", "b.c/1", "b0/1",
	"bb/1", "c/x-", "c/x/1", "c/x/2", "c/x.1", "c/x0", "c/y", "ca", "Z/1", "~z",
}

func testListOrder(t *testing.T, s objstore.Store) {
	create(t, s, orderKeys...)
	want := slices.Clone(orderKeys)
	sort.Strings(want)
	for _, prefix := range []string{"", "a", "a.", "a.b", "a.b/", "b", "b/", "b/1", "b/3/4", "c/x", "c/x/", "c/x/1", "c/x/1/", "none", "none/", "z", "~"} {
		var sub []string
		for _, k := range want {
			if strings.HasPrefix(k, prefix) {
				sub = append(sub, k)
			}
		}
		wantKeys(t, s, prefix, sub...)
		testListAfter(t, s, prefix, sub)
	}
}

// testListAfter starts lists at, just before and just after every key.
func testListAfter(t *testing.T, s objstore.Store, prefix string, keys []string) {
	t.Helper()
	afters := []string{"", "\x01", "b", "b/", "c/x/", "zzz", "~~"}
	for _, k := range keys {
		afters = append(afters, k, k[:len(k)-1], k+"/", k+"!")
	}
	for _, after := range afters {
		i := sort.Search(len(keys), func(i int) bool { return keys[i] > after })
		page, err := s.List(t.Context(), prefix, after, 2)
		noError(t, err)
		var got []string
		for _, o := range page.Objects {
			got = append(got, o.Key)
		}
		if want := keys[i:min(i+2, len(keys))]; !slices.Equal(got, want) {
			t.Errorf("list of %q after %q = %q, want %q", prefix, after, got, want)
		}
		if more := i+2 < len(keys); page.More != more {
			t.Errorf("list of %q after %q says more = %v", prefix, after, page.More)
		}
	}
}

func testListPaging(t *testing.T, s objstore.Store) {
	var keys []string
	for i := range 1_050 {
		keys = append(keys, fmt.Sprintf("p/%d/%05d", i/300, i))
	}
	create(t, s, keys...)
	create(t, s, "o", "p!", "q")
	for _, limit := range []int{0, 1_000, 5_000, 999, 300, 37} {
		if got := listAll(t, s, "p/", limit); !slices.Equal(got, keys) {
			t.Errorf("paging by %d found %d keys, want %d in order", limit, len(got), len(keys))
		}
	}
	page, err := s.List(t.Context(), "p/", "", 0)
	noError(t, err)
	if len(page.Objects) != objstore.MaxListLimit || !page.More {
		t.Errorf("first page has %d objects, more = %v", len(page.Objects), page.More)
	}
	page, err = s.List(t.Context(), "p/3/", "", 150)
	noError(t, err)
	if len(page.Objects) != 150 || page.More {
		t.Errorf("a page that holds all has %d objects, more = %v", len(page.Objects), page.More)
	}
}

func testListAfterWrite(t *testing.T, s objstore.Store) {
	ctx := t.Context()
	for i := range 20 {
		key := fmt.Sprintf("law/%02d", i)
		v, err := s.Create(ctx, key, Body(key))
		noError(t, err)
		wantListed(t, s, key, v)
		v, err = s.Swap(ctx, key, v, Body(key+"!"))
		noError(t, err)
		wantListed(t, s, key, v)
		if i%2 == 0 {
			noError(t, s.Delete(ctx, []string{key}))
			wantKeys(t, s, key)
		}
	}
}

func wantListed(t *testing.T, s objstore.Store, key string, v objstore.Version) {
	t.Helper()
	page, err := s.List(t.Context(), key, "", 10)
	noError(t, err)
	info, err := s.Head(t.Context(), key)
	noError(t, err)
	if len(page.Objects) != 1 {
		t.Fatalf("%q was written but the list has %d objects", key, len(page.Objects))
	}
	o := page.Objects[0]
	if o.Key != key || o.Size != info.Size || o.Version != v || info.Version != v {
		t.Errorf("list has %+v, head %+v, want version %q", o, info, v)
	}
}

// oddKeys are legal and in the way of drivers that escape too little or too much.
var oddKeys = []string{
	"with space/and more", " leading/ trailing /x ", "percent%2Fencoded", "percent%", "100%25", "plus+plus", "a+b/c d",
	"ünïcödé/日本語/🚀", "hash#frag", "query?x=1&y=2", "semi;colon", "colon:colon", "quote'\"quote", "amp&<tag>", "eq=eq",
	"back\\slash", "star*", "brace{}[]", "pipe|", "caret^`", "at@,$!()~", ".hidden/file", "topics/.dot.start/0", "tilde~/.tmp-x",
	"dots..dots/...three", "UPPER/lower", "upper/LOWER", "e\u0301/decomposed", "\u00e9/composed",
	strings.Repeat("p", 255) + "/" + strings.Repeat("q", 200),
}

func testOddKeys(t *testing.T, s objstore.Store) {
	ctx := t.Context()
	create(t, s, oddKeys...)
	want := slices.Clone(oddKeys)
	sort.Strings(want)
	wantKeys(t, s, "", want...)
	for _, key := range oddKeys {
		got, info := readAll(t, s, key)
		if !bytes.Equal(got, []byte(key)) || info.Key != key {
			t.Errorf("object %q holds %q, key %q", key, got, info.Key)
		}
		page, err := s.List(ctx, key, "", 1)
		noError(t, err)
		if len(page.Objects) != 1 || page.Objects[0].Key != key {
			t.Errorf("list of %q = %+v", key, page)
		}
		v, err := s.Swap(ctx, key, info.Version, Body(key))
		noError(t, err)
		info, err = s.Head(ctx, key)
		noError(t, err)
		if info.Version != v || info.Key != key {
			t.Errorf("head of %q after a swap: %+v, want version %q", key, info, v)
		}
	}
	noError(t, s.Delete(ctx, oddKeys))
	wantKeys(t, s, "")
}

var invalidKeys = []string{
	"", "/", "/a", "a/", "a//b", ".", "..", "a/.", "a/..", "../a", "a/../b", "./a", "a/./b", "a\x00b", "a\nb", "\x7f", "bad\xffutf8",
	objstore.ReservedPart, objstore.ReservedPart + "/x", strings.Repeat("x", 256), strings.Repeat("abc/", 300) + "d",
}

func testInvalidKeys(t *testing.T, s objstore.Store) {
	ctx := t.Context()
	for _, key := range invalidKeys {
		_, err := s.Create(ctx, key, Body("x"))
		wantKind(t, err, objstore.ErrInvalid)
		_, err = s.Swap(ctx, key, "1", Body("x"))
		wantKind(t, err, objstore.ErrInvalid)
		_, _, err = s.ReadAt(ctx, key, make([]byte, 1), 0)
		wantKind(t, err, objstore.ErrInvalid)
		_, _, err = s.ReadSuffix(ctx, key, make([]byte, 1))
		wantKind(t, err, objstore.ErrInvalid)
		_, err = s.Head(ctx, key)
		wantKind(t, err, objstore.ErrInvalid)
		wantKind(t, s.Delete(ctx, []string{"fine", key}), objstore.ErrInvalid)
	}
	wantKeys(t, s, "")
	for _, prefix := range []string{"/", "../", "a/../", "//", "a//"} { // no key starts so
		wantKeys(t, s, prefix)
	}
}

func testCancelled(t *testing.T, s objstore.Store) {
	create(t, s, "there")
	info, err := s.Head(t.Context(), "there")
	noError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check := func(err, kind error) {
		t.Helper()
		if !errors.Is(err, kind) || !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v, want %v and context canceled", err, kind)
		}
	}
	_, err = s.Create(ctx, "new", Body("x"))
	check(err, objstore.ErrUnknown)
	_, err = s.Swap(ctx, "there", info.Version, Body("x"))
	check(err, objstore.ErrUnknown)
	_, _, err = s.ReadAt(ctx, "there", make([]byte, 1), 0)
	check(err, objstore.ErrUnavailable)
	_, _, err = s.ReadSuffix(ctx, "there", make([]byte, 1))
	check(err, objstore.ErrUnavailable)
	_, err = s.Head(ctx, "there")
	check(err, objstore.ErrUnavailable)
	check(s.Delete(ctx, []string{"there"}), objstore.ErrUnavailable)
	_, err = s.List(ctx, "", "", 0)
	check(err, objstore.ErrUnavailable)
	// Called with a context that had ended, nothing was sent at all.
	wantKeys(t, s, "", "there")
}
