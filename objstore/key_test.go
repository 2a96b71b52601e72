package objstore_test

import (
	"errors"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tierlog/tierlog/objstore"
)

func TestCheckKey(t *testing.T) {
	for _, key := range []string{
		"a", "a/b", ".a", "a.", "...", "a/.tierlog", "topics/.x.y/0", "with space", "ünï/日本", "a\\b", "%2F",
		strings.Repeat("x", 255), strings.Repeat(strings.Repeat("x", 204)+"/", 4) + strings.Repeat("y", 204),
	} {
		if err := objstore.CheckKey(key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	for key, want := range map[string]string{
		"":                          "empty",
		"/":                         `part ""`,
		"a/":                        `part ""`,
		"/a":                        `part ""`,
		"a//b":                      `part ""`,
		".":                         `part "."`,
		"a/..":                      `part ".."`,
		"../a":                      `part ".."`,
		"a\nb":                      "0x0a",
		"a\x7f":                     "0x7f",
		"\xff":                      "UTF-8",
		".tierlog":                  "reserved",
		".tierlog/tmp/x":            "reserved",
		strings.Repeat("x", 256):    "256 bytes",
		strings.Repeat("x/", 512):   `part ""`,
		strings.Repeat("abc/", 300): "1200 bytes",
	} {
		err := objstore.CheckKey(key)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want something about %s", key, err, want)
		}
		if err := objstore.CheckedKey("read", key); !errors.Is(err, objstore.ErrInvalid) {
			t.Errorf("%q: %v is not ErrInvalid", key, err)
		}
	}
}

// FuzzCheckKey: what passes is safe to append to a directory's path, and to a URL once it is escaped.
func FuzzCheckKey(f *testing.F) {
	for _, key := range []string{"a/b", "", "/", "..", "a/../b", "a\x00", "\xff", ".tierlog/x", strings.Repeat("a/", 300)} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if objstore.CheckKey(key) != nil {
			return
		}
		if path.Clean("/"+key) != "/"+key || !utf8.ValidString(key) || len(key) > objstore.MaxKeySize {
			t.Fatalf("%q passes", key)
		}
		for part := range strings.SplitSeq(key, "/") {
			if part == "" || part == "." || part == ".." || len(part) > objstore.MaxPartSize || strings.ContainsAny(part, "\x00\n\r") {
				t.Fatalf("%q passes", key)
			}
		}
		if key == objstore.ReservedPart || strings.HasPrefix(key, objstore.ReservedPart+"/") {
			t.Fatalf("%q passes", key)
		}
	})
}
