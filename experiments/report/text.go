package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/fnwire/fnwire/experiments/results"
)

// WriteText writes the tables of the records for a terminal: one line a value, since there may be many.
func WriteText(w io.Writer, records []results.Record) error {
	for _, s := range sections(records) {
		fmt.Fprintf(w, "%s   %s\n", s.Experiment, s.Settings)
		for _, t := range s.Tables {
			fmt.Fprintf(w, "\n%s (median, least to most)\n", t.Title)
			if err := transposed(w, t); err != nil {
				return err
			}
		}
		if len(s.Ratios) > 0 {
			fmt.Fprintf(w, "\nRatios\n  %s\n", strings.Join(s.Ratios, "\n  "))
		}
		for _, f := range s.Failures {
			fmt.Fprintf(w, "FAILED %s\n", f)
		}
		for _, f := range s.Skipped {
			fmt.Fprintf(w, "SKIPPED %s\n", f)
		}
	}
	return nil
}

// transposed writes a table with its columns as rows.
func transposed(w io.Writer, t table) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, head := range t.Head {
		line := []string{"", head}
		for _, row := range t.Rows {
			text := row[i].Text
			if row[i].Spread != "" {
				text += " (" + row[i].Spread + ")"
			}
			line = append(line, text)
		}
		fmt.Fprintln(tw, strings.TrimRight(strings.Join(line, "\t"), "\t"))
	}
	return tw.Flush()
}
