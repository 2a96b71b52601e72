package cli

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

func (a *app) topicDeleteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "delete NAME... [flags]",
		Aliases:           []string{"rm"},
		Short:             "Delete topics and all their records",
		Example:           "  tierlog topic delete orders\n  tierlog topic delete test-1 test-2",
		Args:              someArgs("the topic's NAME"),
		ValidArgsFunction: a.completeTopics(0),
	}
	client := a.clientFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cl, err := client.connect(cmd)
		if err != nil {
			return err
		}
		defer cl.Close()
		resps, err := kadm.NewClient(cl).DeleteTopics(cmd.Context(), args...)
		if err != nil {
			return err
		}
		var errs []error
		for _, name := range args {
			r, err := resps.On(name, nil)
			if err = errors.Join(err, r.Err); err != nil {
				errs = append(errs, topicError(name, err, r.ErrMessage))
				continue
			}
			errs = append(errs, a.say("deleted topic %s", name))
		}
		return errors.Join(errs...)
	}
	return cmd
}
