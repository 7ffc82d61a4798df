package report

import (
	"fmt"
	"strings"
)

// method says once, for page and Markdown, how to read the ratios.
const method = "Ratios of medians, with bootstrap 95 % confidence intervals (percentiles of 4,000 resamples with a fixed seed; of few repetitions they are somewhat too narrow). n is how many repetitions there are, of fnwire and of the other way; " +
	"those that failed do not count, and are told; ‡ is how many are marked. Where an interval has both faster and slower in it, it is “unclear” which is true or, if no bound is above 1.15 times, they are “≈ same”. The best store is the one whose median came out best, which favours stores a little."

// markdown is the report as GitHub shows it; the plots are in files.
func (d *document) markdown() string {
	var b strings.Builder
	b.WriteString("# fnwire experiments\n\n## The answer\n\n")
	if len(d.Answers) == 0 {
		b.WriteString("Nothing here was done by several ways, so nothing is compared.\n\n")
	}
	if len(d.Claims.Rows) > 0 {
		d.Claims.markdown(&b)
	}
	if d.Tally != "" {
		fmt.Fprintf(&b, "**%s**\n\n", md(d.Tally))
	}
	if len(d.Answers) > 0 {
		fmt.Fprintf(&b, "%s\n\n", md(method))
	}
	if len(d.Warnings) > 0 {
		b.WriteString("**Why not to trust it**\n\n")
		list(&b, d.Warnings)
	}
	for _, a := range d.Answers {
		fmt.Fprintf(&b, "### %s\n\n%s\n\n", md(a.Title()), md(a.Verdict))
		a.Table.markdown(&b)
		list(&b, a.Notes)
	}
	for _, s := range d.Sections {
		s.markdown(&b)
	}
	return b.String()
}

func (s *section) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "## %s\n\n", md(s.Title))
	for _, line := range [][2]string{
		{"settings", s.Settings}, {"seed", s.Seeds}, {"commit", s.Commit + ", program " + s.Program}, {"machine", s.Machine}, {"measured", s.From + " to " + s.To},
	} {
		fmt.Fprintf(b, "- %s: %s\n", line[0], md(line[1]))
	}
	b.WriteString("\nTo repeat it:\n\n")
	for _, c := range s.Commands {
		fmt.Fprintf(b, "    %s\n", oneLine(c))
	}
	b.WriteString("\n")
	if s.Calibration != nil {
		fmt.Fprintf(b, "### %s\n\n", md(s.Calibration.Title))
		s.Calibration.markdown(b)
	}
	list(b, s.Network)
	s.Matrix.markdown(b)
	for _, p := range s.Plots {
		fmt.Fprintf(b, "**%s**\n\n![%s](%s/%s)\n\n", md(p.Title), md(p.Title), PlotsName, p.File)
	}
	list(b, s.LeftOut)
	for _, t := range s.Tables {
		fmt.Fprintf(b, "<details><summary>%s</summary>\n\n", md(t.Title+" (median, least to most)"))
		t.markdown(b)
		b.WriteString("</details>\n\n")
	}
	for _, l := range []struct {
		title string
		lines []string
	}{{"Configuration", s.Configs}, {"Modelled", s.Modelled}, {"Skipped", s.Skipped}, {"Failed", s.Failures}} {
		if len(l.lines) > 0 {
			fmt.Fprintf(b, "**%s**\n\n", l.title)
			list(b, l.lines)
		}
	}
}

// markdown writes the maps as tables of numbers.
func (m *matrix) markdown(b *strings.Builder) {
	if m == nil {
		return
	}
	list(b, m.Classes)
	fmt.Fprintf(b, "How they are expected to meet, by RFC 4787: %s. ", md(strings.Join(m.Ways, "; ")))
	if m.Misses > 0 {
		fmt.Fprintf(b, "Pairs of kinds that miss their target: %d, marked “!”.\n\n", m.Misses)
	} else {
		b.WriteString("Every pair of kinds has its target.\n\n")
	}
	for _, h := range m.Maps {
		t := table{Head: append([]string{""}, h.Kinds...)}
		for i, row := range h.Rows {
			cells := []cell{{Text: h.Kinds[i]}}
			for _, c := range row {
				cells = append(cells, cell{Text: c.value()})
			}
			t.Rows = append(t.Rows, cells)
		}
		fmt.Fprintf(b, "### %s\n\n", md(h.Title))
		t.markdown(b)
		var shared []string
		for _, c := range h.Shared {
			shared = append(shared, c.Label+": "+c.value())
		}
		list(b, shared)
	}
	if len(m.NotAll.Rows) > 0 {
		fmt.Fprintf(b, "### %s\n\n", md(m.NotAll.Title))
		m.NotAll.markdown(b)
	}
}

func (t table) markdown(b *strings.Builder) {
	for i, h := range t.Head {
		if i == 0 {
			b.WriteString("|")
		}
		fmt.Fprintf(b, " %s |", md(h))
	}
	b.WriteString("\n|" + strings.Repeat(" --- |", len(t.Head)) + "\n")
	for _, row := range t.Rows {
		b.WriteString("|")
		for _, c := range row {
			text := md(c.Text)
			if c.Class != "" {
				text = "**" + text + "**"
			}
			if c.Spread != "" {
				text += "<br>" + md(c.Spread)
			}
			fmt.Fprintf(b, " %s |", text)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

func list(b *strings.Builder, lines []string) {
	for _, l := range lines {
		fmt.Fprintf(b, "- %s\n", md(l))
	}
	if len(lines) > 0 {
		b.WriteString("\n")
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ") }

var mdEscapes = strings.NewReplacer(
	"&", "&amp;", "<", "&lt;", ">", "&gt;", "|", `\|`, "*", `\*`, "_", `\_`, "`", "\\`", "[", `\[`, "]", `\]`, `\`, `\\`, "~", `\~`,
)

// md makes any text one line of Markdown that shows it.
func md(s string) string { return mdEscapes.Replace(oneLine(s)) }
