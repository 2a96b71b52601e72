package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tierlog/tierlog/cli/settings"
)

// envPrefix is what the variables of settings start with.
const envPrefix = "TIERLOG_"

func (a *app) brokerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "broker [flags]",
		Short: "Run a broker",
		Long: "Run a broker until it is interrupted.\n\n" +
			"Every flag may also come from the environment (TIERLOG_ and the flag's name in capitals, dashes as\n" +
			"underscores; TIERLOG_SET=NAME=VALUE,NAME=VALUE) and from the file given with --config. A flag wins over the\n" +
			"environment, the environment over the file, the file over the default. --print-config shows the outcome.",
		Example: "  tierlog broker\n" +
			"  tierlog broker --listen 0.0.0.0:9092 --advertise logs.example.net:9092\n" +
			"  tierlog broker --store 's3://my-bucket/logs?region=eu-central-1' --data-dir /var/lib/tierlog\n" +
			"  tierlog broker --set memory.limit=4294967296 --set auto.create.topics.enable=false\n" +
			"  TIERLOG_NODE_ID=2 tierlog broker --config tierlog.yaml --print-config",
		Args: noArgs,
	}
	for _, s := range brokerSettings {
		cmd.Flags().Var(&namedString{value: s.value, kind: s.kind}, s.name, s.usage)
	}
	cmd.Flags().StringArray("set", nil, "set a broker config by its Kafka name, as `NAME=VALUE`; may be repeated")
	show := cmd.Flags().Bool("print-config", false, "print every setting and where it comes from, and end")
	cmd.Flags().SortFlags = false
	completeWords(cmd, "log-level", "debug", "info", "warn", "error")
	completeWords(cmd, "log-format", "auto", "text", "json")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	_ = cmd.MarkFlagDirname("data-dir")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		layered, err := settings.Load(settings.Spec{
			Flags: cmd.Flags(), Names: brokerSettingNames(), Assign: "set", FileFlag: "config",
			EnvPrefix: envPrefix, Environ: func() []string { return a.Environ },
		})
		if err != nil {
			return &usageError{err}
		}
		cfg, err := brokerConfig(layered)
		if err != nil {
			return &usageError{err}
		}
		if *show {
			return printBrokerConfig(a.Stdout, layered, cfg)
		}
		return a.RunBroker(cmd.Context(), cfg, NewLogger(a.Stderr, cfg.Log), a.Stdout)
	}
	return cmd
}

// printBrokerConfig lists every setting and every broker config with its source.
func printBrokerConfig(w io.Writer, l *settings.Layered, cfg BrokerConfig) error {
	t := newTable("SETTING", "VALUE", "FROM")
	for _, v := range l.Values() {
		if v.Name == "store" {
			v.Text = cfg.Store.Redacted()
		}
		t.row(v.Name, orNone(v.Text), v.Source)
	}
	sources := map[string]settings.Source{}
	for _, v := range l.Assignments() {
		sources[v.Name] = v.Source
	}
	for _, e := range cfg.Broker.Describe() {
		value := e.Value
		if e.Sensitive && value != "" {
			value = "xxxxx"
		}
		t.row("set "+e.Name, orNone(value), sources[e.Name])
	}
	if err := t.write(w, 0); err != nil {
		return fmt.Errorf("print the configuration: %w", err)
	}
	return nil
}

func orNone(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// layoutFlag adds a flag for a layout of franz-go's grammar, whose default is one value a line.
func layoutFlag(cmd *cobra.Command, p *string, name, usage string) {
	*p = `%v\n`
	cmd.Flags().Var(&layoutValue{p}, name, usage)
}

// layoutValue is a text flag that is shown as it is typed, backslashes and all.
type layoutValue struct{ p *string }

func (l *layoutValue) String() string     { return *l.p }
func (l *layoutValue) Set(v string) error { *l.p = v; return nil }
func (l *layoutValue) Type() string       { return "FORMAT" }

// namedString is a text flag whose help names what it takes.
type namedString struct{ value, kind string }

func (s *namedString) String() string     { return s.value }
func (s *namedString) Set(v string) error { s.value = v; return nil }
func (s *namedString) Type() string       { return s.kind }

// completeWords completes a flag's value from a fixed list.
func completeWords(cmd *cobra.Command, flag string, words ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}
