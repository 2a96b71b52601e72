package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) topicCommand() *cobra.Command {
	return group(
		&cobra.Command{
			Use:     "topic",
			Short:   "Create, list, describe, alter and delete topics",
			Example: "  tierlog topic create orders --partitions 3\n  tierlog topic list",
		},
		a.topicCreateCommand(),
		a.topicListCommand(),
		a.topicDescribeCommand(),
		a.topicAlterCommand(),
		a.topicDeleteCommand(),
	)
}

// say prints a line of result.
func (a *app) say(format string, args ...any) error {
	_, err := fmt.Fprintf(a.Stdout, format+"\n", args...)
	return err
}

// note prints a line for the person at the terminal, apart from the results.
func (a *app) note(format string, args ...any) {
	_, _ = fmt.Fprintf(a.Stderr, format+"\n", args...)
}
