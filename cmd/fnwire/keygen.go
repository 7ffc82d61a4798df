package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/cli"
	"github.com/fnwire/fnwire/internal/job"
)

// keyReport is what keygen prints with --json.
type keyReport struct {
	JobKey string `json:"job_key,omitempty"`
	JobID  job.ID `json:"job_id"`
}

func newKeygen(c *common) *cobra.Command {
	var idOnly bool
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make a job key",
		Long: `Make a job key, the secret that all functions of a job share, and print it with the job's ID, which is
public: a rendezvous admits the job by it (rendezvous --allow ID).`,
		Example: `  eval "$(fnwire keygen)"
  fnwire keygen --id          # of the key in FNWIRE_JOB_KEY`,
		Args: cli.Args(cobra.NoArgs),
		RunE: c.run(func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			if !idOnly {
				k := job.NewKey()
				if c.json {
					return cli.PrintJSON(out, keyReport{k.Encode(), k.ID()})
				}
				_, err := fmt.Fprintf(out, "export %s=%s\n# job ID: %s\n", fnlib.EnvJobKey, k.Encode(), k.ID())
				return err
			}
			given := cmp.Or(c.jobKey, os.Getenv(fnlib.EnvJobKey))
			if given == "" {
				return cli.Usage(errors.New("--id: no job key: set FNWIRE_JOB_KEY"))
			}
			k, err := job.ParseKey(given)
			if err != nil {
				return cli.Usage(err)
			}
			if c.json {
				return cli.PrintJSON(out, keyReport{JobID: k.ID()})
			}
			_, err = fmt.Fprintln(out, k.ID())
			return err
		}),
	}
	cmd.Flags().BoolVar(&idOnly, "id", false, "make no key, print the ID of the one given")
	return cmd
}
