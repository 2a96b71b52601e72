package backend

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/minio"
	"github.com/tierlog/tierlog/objstore/s3"
	"github.com/tierlog/tierlog/test/miniotest"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		text     string
		want     Spec
		redacted string // where it differs from the text
		warns    string
	}{
		{text: "./tierlog-data/bucket", want: Spec{kind: Dir, path: "./tierlog-data/bucket"}},
		{text: "/var/lib/bucket", want: Spec{kind: Dir, path: "/var/lib/bucket"}},
		{text: "data", want: Spec{kind: Dir, path: "data"}},
		{text: "./a:b", want: Spec{kind: Dir, path: "./a:b"}},
		{text: "dir/a:b%20c", want: Spec{kind: Dir, path: "dir/a:b%20c"}},
		{text: "data?fsync=off", want: Spec{kind: Dir, path: "data", noSync: true}, warns: "fsync is off"},
		{text: "data?fsync=on", want: Spec{kind: Dir, path: "data"}},
		{text: "file:///a%20b/c%3Fd?fsync=off", want: Spec{kind: Dir, path: "/a b/c?d", noSync: true}, warns: "fsync is off"},
		{text: "file://rel/dir", want: Spec{kind: Dir, path: "rel/dir"}},
		{text: "FILE:///a", want: Spec{kind: Dir, path: "/a"}},
		{text: "mem:", want: Spec{kind: Mem}, warns: "nothing outlives"},
		{text: "mem://", want: Spec{kind: Mem}, redacted: "mem:", warns: "nothing outlives"},
		{text: "s3://bucket", want: Spec{kind: S3, s3: s3.Config{Bucket: "bucket"}}},
		{text: "s3://bucket/", want: Spec{kind: S3, s3: s3.Config{Bucket: "bucket"}}},
		{text: "s3://my.bucket-1/a/b/?region=eu-west-1", want: Spec{kind: S3, s3: s3.Config{Bucket: "my.bucket-1", Prefix: "a/b", Region: "eu-west-1"}}},
		{
			text: "s3://bucket/p?endpoint=http://127.0.0.1:9000&region=us-east-1&payload-signing=on&connections=7&timeout=5s&ca=/etc/ca.pem",
			want: Spec{kind: S3, s3: s3.Config{
				Bucket: "bucket", Prefix: "p", Region: "us-east-1", Endpoint: "http://127.0.0.1:9000",
				SignPayload: true, MaxConns: 7, Timeout: 5 * time.Second, CAFile: "/etc/ca.pem",
			}},
		},
		{
			text: "minio+http://key:secret@127.0.0.1:9000/bucket/a/b", redacted: "minio+http://***@127.0.0.1:9000/bucket/a/b",
			want: Spec{kind: MinIO, minio: minio.Config{
				Endpoint: "127.0.0.1:9000", Bucket: "bucket", Prefix: "a/b", AccessKey: "key", SecretKey: "secret",
			}},
		},
		{
			text:     "minio+https://k:s%2F%3F%23%40%25t@store.example.org/bucket?region=x-1&payload-signing=off",
			redacted: "minio+https://***@store.example.org/bucket?region=x-1&payload-signing=off",
			want: Spec{kind: MinIO, minio: minio.Config{
				Endpoint: "store.example.org", Secure: true, Bucket: "bucket", Region: "x-1", AccessKey: "k", SecretKey: "s/?#@%t",
			}},
		},
		{text: "minio+http://[::1]:9000/bucket", want: Spec{kind: MinIO, minio: minio.Config{Endpoint: "[::1]:9000", Bucket: "bucket"}}},
	} {
		got, err := Parse(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		c.want.redacted = c.redacted
		if c.redacted == "" {
			c.want.redacted = c.text
		}
		if got != c.want {
			t.Errorf("%s: got %+v of\n%#v, want\n%#v", c.text, got, inner(got), inner(c.want))
		}
		if w := got.Warning(); (w == "") != (c.warns == "") || !strings.Contains(w, c.warns) {
			t.Errorf("%s warns %q, want %q", c.text, w, c.warns)
		}
	}
}

// inner shows what a Spec hides.
func inner(s Spec) any {
	type plain Spec
	return plain(s)
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "it is empty; want PATH, file://PATH",
		"?fsync=off":                      "path: it is empty",
		"file://":                         "path: it is empty",
		"file:/a":                         `scheme: "file" must be followed by ://`,
		"file://a%zz":                     "path: invalid URL escape",
		"data?fsync=no":                   `options: fsync: "no": want on or off`,
		"data?sync=off":                   `options: "sync" is not known; want one of fsync`,
		"data?fsync=on&fsync=off":         "options: fsync is given 2 times",
		"gs://bucket":                     `scheme: "gs" is not known; want PATH`,
		"http://127.0.0.1:9000/bucket":    `scheme: "http" is not known`,
		"C:data":                          "(a relative path with a colon: ./PATH)",
		"mem:x":                           "mem: takes nothing behind it",
		"s3:bucket":                       `scheme: "s3" must be followed by ://`,
		"s3://":                           `bucket: "": 3 to 63 of a-z, 0-9, dots and dashes are allowed`,
		"s3://Bucket":                     `bucket: "Bucket": 3 to 63`,
		"s3://bucket:80/x":                "a bucket has no port",
		"s3://bucket/a//b":                `prefix: "a//b": it has the part ""`,
		"s3://bucket/a/../b":              `prefix: "a/../b": it has the part ".."`,
		"s3://bucket/a#b":                 "prefix: write # as %23",
		"s3://bucket?regoin=x":            `options: "regoin" is not known; want one of ca, connections, endpoint, payload-signing, region, timeout`,
		"s3://bucket?region=a%20b":        `region: "a b" is not a region's name`,
		"s3://bucket?endpoint=localhost":  `endpoint: "localhost": must be http:// or https://`,
		"s3://bucket?endpoint=http://h/p": `endpoint: "http://h/p": must be`,
		"s3://bucket?connections=0":       `options: connections: "0": want a number from 1 to 10000`,
		"s3://bucket?timeout=5":           `options: timeout: "5": want a duration from 100ms to 1h`,
		"s3://b--x-s3":                    "directory bucket",
		"minio+http://127.0.0.1:9000":     `bucket: "": 3 to 63`,
		"minio+http:///bucket":            `endpoint: "" must be HOST or HOST:PORT`,
		"minio+http://h:99999/bucket":     `endpoint: "h:99999" must have a port from 1 to 65535`,
		"minio+http:bucket":               `scheme: "minio+http" must be followed by ://`,
		"minio+http://h/bucket?fsync=off": `options: "fsync" is not known`,
		"minio+http://k@h/bucket":         "credentials: the access key and the secret key must both be given",
		"minio+http://h/bucket/.tierlog":  `prefix: ".tierlog": it starts with the reserved part`,
	} {
		_, err := Parse(text)
		if err == nil || !strings.HasPrefix(err.Error(), "store: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}

const (
	accessKey = "ACCESSKEYQQ"
	secretKey = "sEcReTqqXXyyZZ"
)

// secretForms hold the secret in places where it belongs, or where a slip of the pen puts it.
var secretForms = []string{
	"minio+http://ACCESSKEYQQ:sEcReTqqXXyyZZ@h:9000/bucket",
	"minio+https://ACCESSKEYQQ:sEcReTqqXXyyZZ@h:9000/bucket/prefix?region=x",
	"minio+http://ACCESSKEYQQ:sEcReTqqXXyyZZ@h:9000/BAD",
	"minio+http://ACCESSKEYQQ:sEcReTqqXXyyZZ@h:port/bucket",
	"minio+http://ACCESSKEYQQ:sEcReTqqXXyyZZ@/bucket",
	"minio+http://ACCESSKEYQQ:sEcReTqqXXyyZZ@h/bucket?x=y",
	"minio+http://ACCESSKEYQQ:sEcReTqqXXyyZZ/xx@h/bucket",
	"minio+http://ACCESSKEYQQ:1/sEcReTqqXXyyZZ@h/bucket",
	"minio+http://ACCESSKEYQQ:x@sEcReTqqXXyyZZ?x@h/bucket",
	"minio+http://ACCESSKEYQQ:x?sEcReTqqXXyyZZ@h/bucket",
	"minio+http://ACCESSKEYQQ:x#sEcReTqqXXyyZZ@h/bucket",
	"minio+http://ACCESSKEYQQ:%zzsEcReTqqXXyyZZ@h/bucket",
	"minio+http://ACCESSKEYQQ:sEcReTqqXXyyZZ%@h/bucket",
	"minio://ACCESSKEYQQ:sEcReTqqXXyyZZ@h/bucket",
	"http://ACCESSKEYQQ:sEcReTqqXXyyZZ@h/bucket",
	"s3://ACCESSKEYQQ:sEcReTqqXXyyZZ@bucket/prefix",
	"s3://bucket?endpoint=http://ACCESSKEYQQ:sEcReTqqXXyyZZ@h:9000",
}

func TestSecretsDoNotShow(t *testing.T) {
	for _, text := range secretForms {
		spec, err := Parse(text)
		noSecret(t, text, fmt.Sprint(err), fmt.Sprintf("%#v", err))
		if err != nil {
			continue
		}
		js, err := json.Marshal(map[string]any{"store": spec})
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", slog.Any("store", spec))
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", slog.Any("store", spec), slog.Any("pointer", &spec))
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			noSecret(t, text, fmt.Sprintf(verb, spec), fmt.Sprintf(verb, &spec), fmt.Sprintf(verb, []Spec{spec}), fmt.Sprintf(verb, struct{ S Spec }{spec}))
		}
		noSecret(t, text, spec.Redacted(), spec.String(), string(js), log.String())
	}
}

func noSecret(t *testing.T, text string, shown ...string) {
	t.Helper()
	for _, s := range shown {
		if strings.Contains(s, secretKey) || strings.Contains(strings.ToUpper(s), accessKey) {
			t.Errorf("%s shows as %s", text, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range secretForms {
		f.Add(text)
	}
	f.Add("file:///a?fsync=off")
	f.Add("s3://bucket/p?region=x")
	f.Fuzz(func(t *testing.T, text string) {
		spec, err := Parse(text)
		shown := spec.Redacted()
		if err != nil {
			shown = err.Error()
		}
		if u, uerr := url.Parse(text); uerr == nil && u.User != nil {
			secret, _ := u.User.Password()
			rest := strings.Replace(text, u.User.String()+"@", "", 1)
			if len(secret) > 5 && !strings.Contains(Forms+rest+"minio: it can not be read", secret) && strings.Contains(shown, secret) {
				t.Errorf("%q shows its password as %q", text, shown)
			}
		}
		if err != nil {
			return
		}
		if spec.Kind() == MinIO && spec.minio.SecretKey != "" && !strings.Contains(shown, "://***@") {
			t.Errorf("%q is redacted to %q", text, shown)
		}
	})
}

func TestOpen(t *testing.T) {
	server := miniotest.Start(t)
	bucket := server.Bucket(t, "bucket")
	for _, kv := range server.Env() {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
	for _, text := range []string{
		filepath.Join(t.TempDir(), "new"),
		"file://" + filepath.Join(t.TempDir(), "new") + "?fsync=off",
		"mem:",
		server.StoreURL(bucket, "one"),
		"minio+http://" + server.Addr + "/" + bucket + "/two", // credentials from the environment
		server.S3URL(bucket, "three"),
	} {
		t.Run(text[:min(len(text), 12)], func(t *testing.T) {
			roundTrip(t, text)
		})
	}
}

func roundTrip(t *testing.T, text string) {
	t.Helper()
	spec, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s, err := Open(t.Context(), spec, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if got := strings.Contains(log.String(), spec.Warning()); !got || (spec.Warning() == "") != (log.Len() == 0) {
		t.Errorf("log is %q, warning %q", &log, spec.Warning())
	}
	if _, err := s.Create(t.Context(), "k", objstore.Bytes([]byte(text))); err != nil {
		t.Fatal(err)
	}
	data, _, err := objstore.ReadAll(t.Context(), s, "k", 1<<10)
	if err != nil || string(data) != text {
		t.Errorf("read back %q, %v", data, err)
	}
}

func TestOpenFails(t *testing.T) {
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE",
		"MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD",
	} {
		t.Setenv(name, "")
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fails := func(spec Spec, kind error, want string) {
		t.Helper()
		s, err := Open(t.Context(), spec, slog.New(slog.DiscardHandler))
		if err == nil || s != nil || (kind != nil && !errors.Is(err, kind)) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: store %v, error %v; want %v, %q", spec, s, err, kind, want)
		}
	}
	parsed := func(text string) Spec {
		t.Helper()
		spec, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return spec
	}
	fails(Spec{}, nil, "no store was named")
	fails(parsed("s3://bucket?region=eu-west-1"), objstore.ErrDenied, "no credentials")
	fails(parsed("minio+http://127.0.0.1:1/bucket"), objstore.ErrDenied, "no credentials")
	fails(parsed(file+"/sub"), nil, "not a directory")
	missing := filepath.Join(t.TempDir(), "missing")
	fails(parsed(missing).ReadOnly(), objstore.ErrNoBucket, missing)
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a reader made the directory: %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "a")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
	fails(parsed("s3://bucket"), nil, "region: none is set")
}
