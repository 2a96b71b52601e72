package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// root builds the command tree.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "tierlog",
		Short: "A Kafka-protocol log whose only durable state is a bucket",
		Long: "tierlog is a Kafka-protocol log whose only durable state is an S3-compatible bucket or a directory.\n" +
			"Any Kafka client can write to it and read from it.",
		Example: "  tierlog broker                      # start a broker on 127.0.0.1:9092\n" +
			"  tierlog topic create orders         # create a topic\n" +
			"  echo hello | tierlog produce orders # write a record\n" +
			"  tierlog consume orders              # read it back",
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(*cobra.Command, []string) error { a.started = true; return nil },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{plainFlagError(err)} })
	// A command that holds others is not used by itself.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if not .HasAvailableSubCommands}}", 1))
	group(root,
		a.brokerCommand(),
		a.topicCommand(),
		a.produceCommand(),
		a.consumeCommand(),
		a.bucketCommand(),
		a.benchCommand(),
		a.versionCommand(),
	)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Example = "  tierlog help topic create"
		case "completion":
			group(c)
			c.Example = "  source <(tierlog completion bash)"
			for _, shell := range c.Commands() {
				shell.Example = "  tierlog completion " + shell.Name()
			}
		}
	}
	return root
}

// errWhichCommand ends a command that only holds others, after its help.
var errWhichCommand = errors.New("which command?")

// group makes parent a command that only holds others: without one of them it is used wrongly.
func group(parent *cobra.Command, children ...*cobra.Command) *cobra.Command {
	parent.AddCommand(children...)
	parent.Use += " COMMAND"
	parent.DisableFlagsInUseLine = true
	parent.Args = cobra.ArbitraryArgs
	parent.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			cmd.SetOut(cmd.ErrOrStderr())
			return errors.Join(cmd.Help(), &usageError{errWhichCommand})
		}
		err := misuse("unknown command %q for %q", args[0], cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			err = withHint(err, "Did you mean %s?", strings.Join(near, " or "))
		}
		return err
	}
	parent.SuggestionsMinimumDistance = 2
	return parent
}

// plainFlagError says what a flag takes in plain words.
func plainFlagError(err error) error {
	bad, ok := errors.AsType[*pflag.InvalidValueError](err)
	if !ok {
		return err
	}
	name, want := bad.GetFlag().Name, bad.Unwrap().Error()
	switch kind := bad.GetFlag().Value.Type(); {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "float"):
		want = "want a number"
	case kind == "duration":
		want = "want a time such as 500ms, 10s or 2m"
	case kind == "bool":
		want = "want true or false"
	}
	return fmt.Errorf("%s %q: %s", name, bad.GetValue(), want)
}

// hideDefault keeps a default that stands for "not given" out of the help.
func hideDefault(fs *pflag.FlagSet, names ...string) {
	for _, name := range names {
		fs.Lookup(name).DefValue = "0"
	}
}

// noArgs refuses arguments.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return misuse("unexpected argument %q", args[0])
	}
	return nil
}

// oneArg wants exactly one argument, called what in the message.
func oneArg(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return misuse("%s is missing", what)
		case len(args) > 1:
			return misuse("unexpected argument %q after %s %q", args[1], what, args[0])
		case args[0] == "":
			return misuse("%s is empty", what)
		}
		return nil
	}
}

// someArgs wants at least one argument.
func someArgs(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return misuse("%s is missing", what)
		}
		return nil
	}
}

// choice is a flag that takes one of a few words.
type choice struct {
	value   string
	allowed []string
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return strings.Join(c.allowed, "|") }
func (c *choice) Set(s string) error {
	if slices.Contains(c.allowed, s) {
		c.value = s
		return nil
	}
	return fmt.Errorf("want one of %s", strings.Join(c.allowed, ", "))
}

// choiceFlag adds a flag that takes one of the allowed words, the first being the default, and completes them.
func choiceFlag(cmd *cobra.Command, name, usage string, allowed ...string) *choice {
	c := &choice{value: allowed[0], allowed: allowed}
	cmd.Flags().Var(c, name, usage)
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(allowed, cobra.ShellCompDirectiveNoFileComp))
	return c
}
