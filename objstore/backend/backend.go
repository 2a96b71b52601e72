// Package backend turns the URL of a store into the store.
//
//	PATH or file://PATH[?fsync=off]              a directory
//	s3://BUCKET[/PREFIX][?region=&endpoint=]     Amazon S3 and others, through the AWS SDK and its credential chain
//	minio+http://[KEY:SECRET@]HOST[:PORT]/BUCKET[/PREFIX][?region=], and minio+https://
//	mem:                                         memory of this process
//
// The two kinds of bucket also take payload-signing=on|off, connections=N, timeout=DURATION and ca=FILE.
//
// Invariants:
//
//   - A Spec prints without its secrets, whatever verb or encoder prints it.
//   - An error of Parse repeats no part of a URL that might be a secret, also when the URL is malformed.
package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/dir"
	"github.com/tierlog/tierlog/objstore/mem"
	"github.com/tierlog/tierlog/objstore/minio"
	"github.com/tierlog/tierlog/objstore/s3"
)

// Kind is a kind of store.
type Kind string

// The kinds.
const (
	Dir   Kind = "dir"
	S3    Kind = "s3"
	MinIO Kind = "minio"
	Mem   Kind = "mem"
)

// Forms is what Parse takes, for messages and help texts.
const Forms = "PATH, file://PATH, s3://BUCKET/PREFIX, minio+http://KEY:SECRET@HOST:PORT/BUCKET/PREFIX, minio+https or mem: for memory"

// Spec is a parsed URL. The zero value opens nothing.
type Spec struct {
	kind     Kind
	redacted string

	path     string // of a directory
	noSync   bool
	readOnly bool

	s3    s3.Config
	minio minio.Config
}

// Parse reads the URL of a store. Errors name the part that is wrong and what is allowed.
func Parse(text string) (Spec, error) {
	spec, err := parse(text)
	if err != nil {
		return Spec{}, fmt.Errorf("store: %w", err)
	}
	return spec, nil
}

func parse(text string) (Spec, error) {
	if text == "" {
		return Spec{}, errors.New("it is empty; want " + Forms)
	}
	scheme, rest, ok := cutScheme(text)
	if !ok {
		return parseDir(text, text, false)
	}
	switch scheme {
	case "file":
		if path, ok := strings.CutPrefix(rest, "//"); ok {
			return parseDir(text, path, true)
		}
	case "mem":
		if rest != "" && rest != "//" {
			return Spec{}, errors.New("mem: takes nothing behind it")
		}
		return Spec{kind: Mem, redacted: "mem:"}, nil
	case "s3":
		if strings.HasPrefix(rest, "//") {
			return parseS3(text)
		}
	case "minio+http", "minio+https":
		if strings.HasPrefix(rest, "//") {
			return parseMinIO(text, rest)
		}
	default:
		if len(scheme) > maxScheme {
			return Spec{}, errors.New("scheme: it is not known; want " + Forms)
		}
		return Spec{}, fmt.Errorf("scheme: %q is not known; want %s (a relative path with a colon: ./PATH)", scheme, Forms)
	}
	return Spec{}, fmt.Errorf("scheme: %q must be followed by ://", scheme)
}

// maxScheme is the longest scheme that a message repeats: what is longer may be a key that came before a colon.
const maxScheme = 12

// cutScheme cuts "scheme:" off. A path may hold a colon behind a slash.
func cutScheme(text string) (scheme, rest string, ok bool) {
	scheme, rest, ok = strings.Cut(text, ":")
	if !ok || scheme == "" || strings.ContainsAny(scheme, `/\.?`) {
		return "", "", false
	}
	return strings.ToLower(scheme), rest, true
}

func parseDir(text, path string, escaped bool) (Spec, error) {
	path, query, _ := strings.Cut(path, "?")
	if escaped {
		p, err := url.PathUnescape(path)
		if err != nil {
			return Spec{}, fmt.Errorf("path: %w", err)
		}
		path = p
	}
	if path == "" || strings.ContainsRune(path, 0) {
		return Spec{}, errors.New("path: it is empty or holds a zero byte; want the path of a directory")
	}
	spec := Spec{kind: Dir, path: path, redacted: text}
	err := options(query, map[string]func(string) error{
		"fsync": func(v string) (err error) {
			sync, err := onOff(v)
			spec.noSync = !sync
			return err
		},
	})
	return spec, err
}

func parseS3(text string) (Spec, error) {
	u, err := url.Parse(text)
	switch {
	case strings.Contains(text, "@"):
		return Spec{}, errors.New("s3: credentials do not belong in the URL; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a profile or a role")
	case err != nil:
		return Spec{}, errors.New("s3: it can not be read as a URL; want s3://BUCKET/PREFIX?region=REGION&endpoint=URL")
	case u.Port() != "":
		return Spec{}, errors.New("s3: a bucket has no port; want s3://BUCKET/PREFIX?endpoint=http://HOST:PORT for another store than Amazon's")
	case u.Fragment != "" || strings.HasSuffix(text, "#"):
		return Spec{}, errors.New("prefix: write # as %23")
	}
	c := s3.Config{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/")}
	err = options(u.RawQuery, map[string]func(string) error{
		"region":          setText(&c.Region),
		"endpoint":        setText(&c.Endpoint),
		"payload-signing": setOnOff(&c.SignPayload),
		"connections":     setCount(&c.MaxConns),
		"timeout":         setDuration(&c.Timeout),
		"ca":              setText(&c.CAFile),
	})
	if err == nil {
		err = c.Validate()
	}
	return Spec{kind: S3, s3: c, redacted: text}, err
}

func parseMinIO(text, rest string) (Spec, error) {
	u, err := url.Parse(text)
	if at := strings.Count(rest, "@"); err != nil || at > 1 || at == 1 && u.User == nil {
		// What a parser says of it may quote the secret.
		return Spec{}, errors.New("minio: it can not be read as minio+http://KEY:SECRET@HOST:PORT/BUCKET/PREFIX; in KEY and SECRET write / as %2F, ? as %3F, # as %23, @ as %40 and % as %25")
	}
	if u.Fragment != "" || strings.HasSuffix(text, "#") {
		return Spec{}, errors.New("prefix: write # as %23")
	}
	bucket, prefix, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	c := minio.Config{Endpoint: u.Host, Secure: strings.EqualFold(u.Scheme, "minio+https"), Bucket: bucket, Prefix: prefix}
	c.AccessKey = u.User.Username()
	c.SecretKey, _ = u.User.Password()
	err = options(u.RawQuery, map[string]func(string) error{
		"region":          setText(&c.Region),
		"payload-signing": setOnOff(&c.SignPayload),
		"connections":     setCount(&c.MaxConns),
		"timeout":         setDuration(&c.Timeout),
		"ca":              setText(&c.CAFile),
	})
	if err == nil {
		err = c.Validate()
	}
	shown := *u
	if shown.User != nil {
		shown.User = url.User("***")
	}
	return Spec{kind: MinIO, minio: c, redacted: strings.Replace(shown.String(), "%2A%2A%2A@", "***@", 1)}, err
}

// options sets what a query says. Unknown names and repeated ones are errors.
func options(query string, set map[string]func(string) error) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("options: they can not be read; want ?NAME=VALUE&NAME=VALUE")
	}
	for name, vs := range values {
		f := set[name]
		switch {
		case f == nil:
			var known []string
			for k := range set {
				known = append(known, k)
			}
			slices.Sort(known)
			return fmt.Errorf("options: %q is not known; want one of %s", name, strings.Join(known, ", "))
		case len(vs) > 1:
			return fmt.Errorf("options: %s is given %d times", name, len(vs))
		}
		if err := f(vs[0]); err != nil {
			return fmt.Errorf("options: %s: %q: %w", name, vs[0], err)
		}
	}
	return nil
}

func onOff(v string) (bool, error) {
	switch v {
	case "on":
		return true, nil
	case "off":
		return false, nil
	default:
		return false, errors.New("want on or off")
	}
}

func setText(p *string) func(string) error {
	return func(v string) error {
		*p = v
		return nil
	}
}

func setOnOff(p *bool) func(string) error {
	return func(v string) (err error) {
		*p, err = onOff(v)
		return err
	}
}

func setCount(p *int) func(string) error {
	return func(v string) (err error) {
		if *p, err = strconv.Atoi(v); err != nil || *p < 1 || *p > 10_000 {
			return errors.New("want a number from 1 to 10000")
		}
		return nil
	}
}

func setDuration(p *time.Duration) func(string) error {
	return func(v string) (err error) {
		if *p, err = time.ParseDuration(v); err != nil || *p < 100*time.Millisecond || *p > time.Hour {
			return errors.New("want a duration from 100ms to 1h")
		}
		return nil
	}
}

// Kind returns the kind of store.
func (s Spec) Kind() Kind { return s.kind }

// Redacted returns the URL without its credentials.
func (s Spec) Redacted() string { return s.redacted }

// String implements fmt.Stringer.
func (s Spec) String() string { return s.redacted }

// GoString implements fmt.GoStringer.
func (s Spec) GoString() string { return fmt.Sprintf("backend.Spec(%q)", s.redacted) }

// MarshalText implements encoding.TextMarshaler.
func (s Spec) MarshalText() ([]byte, error) { return []byte(s.redacted), nil }

// LogValue implements slog.LogValuer.
func (s Spec) LogValue() slog.Value { return slog.StringValue(s.redacted) }

// Warning says what the user should know before relying on the store; mostly nothing.
func (s Spec) Warning() string {
	switch {
	case s.kind == Mem:
		return "the store is in memory: nothing outlives the process"
	case s.noSync:
		return "fsync is off: acknowledged records may be lost, or cut short, with the power"
	default:
		return ""
	}
}

// ReadOnly returns the spec for somebody who only reads: a missing directory is an error then, and is not made.
func (s Spec) ReadOnly() Spec {
	s.readOnly = true
	return s
}

// Open opens the store and logs its warning. Buckets are not asked anything yet: one that is missing, forbidden or out
// of reach shows at the first call, or in objstore.Probe.
func Open(ctx context.Context, spec Spec, log *slog.Logger) (objstore.Store, error) {
	store, err := open(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", spec.redacted, err)
	}
	if w := spec.Warning(); w != "" && !spec.readOnly {
		log.WarnContext(ctx, w, slog.Any("store", spec))
	}
	return store, nil
}

func open(ctx context.Context, spec Spec) (objstore.Store, error) {
	switch spec.kind {
	case Dir:
		s, err := dir.Open(spec.path, dir.Options{NoSync: spec.noSync, ReadOnly: spec.readOnly})
		if err != nil {
			return nil, err // not a nil *dir.Store in an interface
		}
		return s, nil
	case S3:
		return s3.Open(ctx, spec.s3)
	case MinIO:
		return minio.Open(spec.minio)
	case Mem:
		return mem.New(), nil
	default:
		return nil, errors.New("no store was named; want " + Forms)
	}
}
