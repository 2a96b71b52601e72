package settings_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/tierlog/tierlog/cli/settings"
)

// load parses args over a small set of settings.
func load(t *testing.T, args, environ []string) (*settings.Layered, error) {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	fs.String("listen", "127.0.0.1:1", "")
	fs.String("data-dir", "./data", "")
	fs.String("config", "", "")
	fs.StringArray("set", nil, "")
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return settings.Load(settings.Spec{
		Flags: fs, Names: []string{"listen", "data-dir", "config"}, Assign: "set", FileFlag: "config",
		EnvPrefix: "TIERLOG_", Environ: func() []string { return environ },
	})
}

func writeFile(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tierlog.yaml")
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	path := writeFile(t, "listen: file:3\ndata-dir: /file\n")
	for _, tc := range []struct {
		name, listen, source string
		args, environ        []string
	}{
		{"default", "127.0.0.1:1", "default", nil, nil},
		{"file over default", "file:3", "file " + path, []string{"--config", path}, nil},
		{"environment over file", "env:2", "environment TIERLOG_LISTEN", []string{"--config", path}, []string{"TIERLOG_LISTEN=env:2"}},
		{
			"flag over environment", "flag:1", "flag --listen",
			[]string{"--config", path, "--listen", "flag:1"},
			[]string{"TIERLOG_LISTEN=env:2"},
		},
		{
			"a flag equal to the default still wins", "127.0.0.1:1", "flag --listen",
			[]string{"--listen", "127.0.0.1:1"},
			[]string{"TIERLOG_LISTEN=env:2"},
		},
		{"an empty variable is a value", "", "environment TIERLOG_LISTEN", nil, []string{"TIERLOG_LISTEN="}},
		{"file named by the environment", "file:3", "file " + path, nil, []string{"TIERLOG_CONFIG=" + path}},
		{"variables of the platform are not ours", "127.0.0.1:1", "default", nil, []string{"TIERLOG_PORT=tcp://10.0.0.1:9092", "LISTEN=x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := load(t, tc.args, tc.environ)
			if err != nil {
				t.Fatal(err)
			}
			got := l.Get("listen")
			if got.Text != tc.listen || got.Source.String() != tc.source {
				t.Errorf("listen = %q from %q, want %q from %q", got.Text, got.Source, tc.listen, tc.source)
			}
		})
	}
}

func TestDashesBecomeUnderscores(t *testing.T) {
	l, err := load(t, nil, []string{"TIERLOG_DATA_DIR=/env"})
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Get("data-dir"); got.Text != "/env" || got.Source.Where != "TIERLOG_DATA_DIR" {
		t.Errorf("got %+v", got)
	}
}

func TestAssignmentsAreLayeredByName(t *testing.T) {
	path := writeFile(t, "set:\n  a.ms: 1\n  b: 1\n  c: 1\n  big: 1000000000\n  half: 0.5\n  nested:\n    name: deep\n")
	l, err := load(t,
		[]string{"--config", path, "--set", "c=3", "--set", "c=4", "--set", "empty="},
		[]string{"TIERLOG_SET=b=2,c=2, cleanup.policy=compact,delete"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range l.Assignments() {
		got = append(got, v.Name+"="+v.Text+" "+v.Source.String())
	}
	want := []string{
		"a.ms=1 file " + path,
		"b=2 environment TIERLOG_SET",
		"big=1000000000 file " + path,
		"c=4 flag --set",
		"cleanup.policy=compact,delete environment TIERLOG_SET",
		"empty= flag --set",
		"half=0.5 file " + path,
		"nested.name=deep file " + path,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestEmptyAssignments(t *testing.T) {
	for _, body := range []string{"set:\n", "set: {}\n"} {
		l, err := load(t, []string{"--config", writeFile(t, body)}, nil)
		if err != nil || len(l.Assignments()) != 0 {
			t.Errorf("%q: got %v, %v", body, l, err)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, tc := range []struct{ name, file, set, env, want string }{
		{"unknown name", "lisen: x", "", "", `unknown setting "lisen"; known: listen, data-dir, set`},
		{"config in the file", "config: x", "", "", `unknown setting "config"`},
		{"a list", "listen: [a, b]", "", "", "listen: want one value"},
		{"no value", "listen:", "", "", "listen: has no value"},
		{"set is not a mapping", "set: a=b", "", "", "want a mapping"},
		{"a list under set", "set: {a: [1]}", "", "", "set.a: want one value"},
		{"not yaml", "\tx: {", "", "", "read configuration file"},
		{"flag without equal sign", "", "abc", "", `"abc" (flag --set): want NAME=VALUE`},
		{"flag without name", "", "=abc", "", `want NAME=VALUE`},
		{"variable without equal sign", "", "", "abc", `"abc" (environment TIERLOG_SET): want NAME=VALUE`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var args, environ []string
			if tc.file != "" {
				args = append(args, "--config", writeFile(t, tc.file))
			}
			if tc.set != "" {
				args = append(args, "--set", tc.set)
			}
			if tc.env != "" {
				environ = append(environ, "TIERLOG_SET="+tc.env)
			}
			_, err := load(t, args, environ)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want something with %q", err, tc.want)
			}
		})
	}
	if _, err := load(t, []string{"--config", "/does/not/exist.yaml"}, nil); err == nil {
		t.Error("a missing file was accepted")
	}
}
