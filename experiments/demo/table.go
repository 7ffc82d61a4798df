package demo

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/fnwire/fnwire/experiments/workload"
)

// Print writes the table.
func (r Result) Print(w io.Writer) error {
	names := make([]string, 0, len(r.Files))
	for _, f := range r.Files {
		names = append(names, filepath.Base(f))
	}
	fmt.Fprintf(w, "Two fresh functions for each row, behind two %s NATs. State: %s.\n", r.NAT, shorten(slices.Compact(names)))
	fmt.Fprintf(w, "Times count from the start of both functions: joining, or connecting to the store, is included.\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "way\tstate\tpath used\tfirst byte\tlast byte\tgoodput\tdigests\t")
	for _, row := range r.Rows {
		if row.Error != "" {
			fmt.Fprintf(t, "%s\t%s\tFAILED\t-\t-\t-\t-\t\n", row.Way, workload.FormatBytes(row.Bytes))
			continue
		}
		digests := "equal"
		if !row.DigestsEqual {
			digests = "DIFFER"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%.0f ms\t%.0f ms\t%s\t%s\t\n", row.Way, workload.FormatBytes(row.Bytes), row.Path,
			row.FirstByteMS, row.LastByteMS, FormatMbps(row.GoodputMbps), digests)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%.1f s in all\n", r.Seconds)
	return err
}

func shorten(names []string) string {
	const most = 4
	if len(names) > most {
		return fmt.Sprintf("%s and %d more files", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// FormatMbps writes a rate with three digits.
func FormatMbps(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.2f Gbit/s", v/1000)
	case v >= 100:
		return fmt.Sprintf("%.0f Mbit/s", v)
	case v >= 10:
		return fmt.Sprintf("%.1f Mbit/s", v)
	}
	return fmt.Sprintf("%.2f Mbit/s", v)
}
