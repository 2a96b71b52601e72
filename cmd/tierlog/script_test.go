package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kfake"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tierlog": main})
}

// TestScripts runs every command as a process of its own, against a Kafka broker in this process where it needs one.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"kafka": startKafka,
			"mask":  maskOutput,
			"shell": runShell,
		},
	})
}

// startKafka starts a broker and sets TIERLOG_BOOTSTRAP: kafka [auto] [CONFIG=VALUE]...; "auto" makes topics on demand.
func startKafka(ts *testscript.TestScript, _ bool, args []string) {
	configs := map[string]string{}
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.DefaultNumPartitions(2), kfake.ClusterID("script")}
	for _, arg := range args {
		if arg == "auto" {
			opts = append(opts, kfake.AllowAutoTopicCreation())
			continue
		}
		name, value, ok := strings.Cut(arg, "=")
		if !ok {
			ts.Fatalf("kafka: %q: want auto or CONFIG=VALUE", arg)
		}
		configs[name] = value
	}
	cluster, err := kfake.NewCluster(append(opts, kfake.BrokerConfigs(configs))...)
	ts.Check(err)
	ts.Defer(cluster.Close)
	ts.Setenv("TIERLOG_BOOTSTRAP", cluster.ListenAddrs()[0])
}

// masks replace what differs from run to run.
var masks = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\b[A-Za-z0-9_-]{22}\b`), "<topic-id------------>"},
	{regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d[.]\d{3}Z`), "<time>"},
	{regexp.MustCompile(`127[.]0[.]0[.]1:\d+`), "<address>"},
}

// maskOutput compares a file, stdout or stderr with a golden file after masking: mask stdout GOLDEN.
func maskOutput(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mask stdout|stderr|FILE GOLDEN")
	}
	got, want := ts.ReadFile(args[0]), ts.ReadFile(args[1])
	for _, m := range masks {
		got = m.pattern.ReplaceAllString(got, m.with)
	}
	if got != want {
		ts.Fatalf("%s differs from %s; got\n%s\nwant\n%s", args[0], args[1], got, want)
	}
}

// runShell runs a pipeline: shell 'COMMAND'. Its output goes to the script's log and must be compared through files.
func runShell(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] shell 'COMMAND'")
	}
	cmd := exec.Command("bash", "-o", "pipefail", "-c", args[0]) //nolint:noctx // ends with the script
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "TIERLOG_BOOTSTRAP="+ts.Getenv("TIERLOG_BOOTSTRAP"))
	out, err := cmd.CombinedOutput()
	ts.Logf("%s", out)
	if (err != nil) != neg {
		ts.Fatalf("shell %q: %v", args[0], fmt.Sprint(err))
	}
}
