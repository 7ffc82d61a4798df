package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/fnwire/fnwire/experiments/results"
)

// WriteText writes the tables of the records for a terminal: one line a value, since there may be many.
func WriteText(w io.Writer, records []results.Record) error {
	for _, s := range sections(records) {
		fmt.Fprintf(w, "%s   %s\n", s.Experiment, s.Settings)
		for _, warning := range s.Warnings {
			fmt.Fprintf(w, "WARNING %s\n", warning)
		}
		if s.Calibration != nil {
			if err := s.Calibration.writeText(w); err != nil {
				return err
			}
		}
		if s.Matrix != nil {
			if err := s.Matrix.writeText(w); err != nil {
				return err
			}
			s.Tables = nil // too wide for a terminal
		}
		for _, t := range s.Tables {
			fmt.Fprintf(w, "\n%s (median, least to most)\n", t.Title)
			if err := transposed(w, t); err != nil {
				return err
			}
		}
		for _, a := range slices.Concat(s.Answers, s.Causes) {
			fmt.Fprintf(w, "\n%s: %s\n", a.what, a.Verdict)
			if err := transposed(w, a.Table); err != nil {
				return err
			}
			for _, n := range slices.Concat(a.models, a.Notes) {
				fmt.Fprintf(w, "  %s\n", n)
			}
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

// writeText writes a table as it is, without spreads.
func (t table) writeText(w io.Writer) error {
	fmt.Fprintf(w, "\n%s\n", t.Title)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "  %s\n", strings.Join(t.Head, "\t"))
	for _, row := range t.Rows {
		texts := make([]string, 0, len(row))
		for _, c := range row {
			texts = append(texts, c.Text)
		}
		fmt.Fprintf(tw, "  %s\n", strings.Join(texts, "\t"))
	}
	return tw.Flush()
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

// writeText writes the maps as triangles of numbers; "!" is a missed target.
func (m *matrix) writeText(w io.Writer) error {
	for _, h := range m.Maps {
		fmt.Fprintf(w, "\n%s\n", h.Title)
		tw := tabwriter.NewWriter(w, 0, 0, 1, ' ', tabwriter.AlignRight)
		names := 0
		for _, k := range h.Kinds {
			names = max(names, len(k))
		}
		for i, row := range h.Rows {
			fmt.Fprintf(tw, "%2d %-*s\t", i+1, names, h.Kinds[i])
			for j := range i + 1 {
				fmt.Fprint(tw, row[j].value(), "\t")
			}
			fmt.Fprintln(tw)
		}
		fmt.Fprint(tw, strings.Repeat(" ", names+3), "\t")
		for i := range h.Kinds {
			fmt.Fprint(tw, i+1, "\t")
		}
		fmt.Fprintln(tw)
		if err := tw.Flush(); err != nil {
			return err
		}
		for _, c := range h.Shared {
			fmt.Fprintf(w, "%s: %s\n", c.Label, cmp.Or(c.value(), "none"))
		}
	}
	_, err := fmt.Fprintf(w, "\n%s\n", strings.Join(m.Classes, "\n"))
	return err
}
