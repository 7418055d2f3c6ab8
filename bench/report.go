package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// section is one part of the report.
type section struct {
	Part   string // as -only names it
	Title  string
	Checks []check
	Tables []table
	Charts []chart
	Took   time.Duration
}

// check is one figure beside its target and its peer.
type check struct {
	What, Ours, Peer, Ratio, Target string
	Met                             bool
}

func (c check) verdict() string {
	if c.Met {
		return "met"
	}
	return "MISSED"
}

// measured is the figure in a sentence's end.
func (c check) measured() string {
	if c.Ratio == "" {
		return c.Ours + ", target " + c.Target
	}
	return c.Ours + " beside " + c.Peer + ", ratio " + c.Ratio + ", target " + c.Target
}

type table struct {
	Title   string
	Columns []string
	Rows    [][]string
	Note    string
}

func (t *table) add(row ...string) { t.Rows = append(t.Rows, row) }

// atMost checks that one median is at most limit times another's.
func (s *section) atMost(what string, medians map[string]float64, ours, peer string, limit float64, unit func(float64) string) {
	s.ratio(what, medians[ours], medians[peer], peer, limit, false, unit)
}

// ratio checks ours ÷ peer against a limit: a lower one when atLeast.
func (s *section) ratio(what string, ours, peer float64, peerName string, limit float64, atLeast bool, unit func(float64) string) {
	ratio := ours / peer
	sign, met := "≤", ratio <= limit
	if atLeast {
		sign, met = "≥", ratio >= limit
	}
	s.Checks = append(s.Checks, check{
		What: what, Ours: unit(ours), Peer: unit(peer) + " " + peerName,
		Ratio: fmt.Sprintf("%.2f", ratio), Target: fmt.Sprintf("%s %.2f", sign, limit), Met: met,
	})
}

// limit checks a count that needs no peer.
func (s *section) limit(what string, ours, limit float64) { s.within(what, ours, limit, count) }

// within checks a figure that needs no peer.
func (s *section) within(what string, ours, limit float64, unit func(float64) string) {
	s.Checks = append(s.Checks, check{
		What: what, Ours: unit(ours), Peer: "–", Ratio: "", Target: "≤ " + unit(limit), Met: ours <= limit,
	})
}

func (s *section) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s  (measured in %s)\n", strings.ToUpper(s.Title), s.Took.Round(time.Second))
	if len(s.Checks) > 0 {
		rows := [][]string{}
		for _, c := range s.Checks {
			rows = append(rows, []string{c.What, c.Ours, c.Peer, c.Ratio, c.Target, c.verdict()})
		}
		printTable(w, table{Columns: []string{"figure", "fleetcall", "peer", "ratio", "target", ""}, Rows: rows})
	}
	for _, t := range s.Tables {
		printTable(w, t)
	}
}

func printTable(w io.Writer, t table) {
	widths := make([]int, len(t.Columns))
	for _, row := range append([][]string{t.Columns}, t.Rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	line := func(row []string) string {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell + strings.Repeat(" ", widths[i]-len([]rune(cell))+2))
		}
		return strings.TrimRight(b.String(), " ")
	}
	fmt.Fprintln(w)
	if t.Title != "" {
		fmt.Fprintln(w, t.Title)
	}
	fmt.Fprintln(w, line(t.Columns))
	for _, row := range t.Rows {
		fmt.Fprintln(w, line(row))
	}
	if t.Note != "" {
		fmt.Fprintln(w, wrap(t.Note, 100))
	}
}

// wrap breaks a text into lines of at most so many columns.
func wrap(text string, columns int) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column == 0:
		case column+1+n > columns:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}

func (t table) markdown() string {
	var b strings.Builder
	if t.Title != "" {
		fmt.Fprintf(&b, "**%s**\n\n", t.Title)
	}
	line := func(row []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | ")) }
	line(t.Columns)
	b.WriteString("|" + strings.Repeat("---|", len(t.Columns)) + "\n")
	for _, row := range t.Rows {
		line(row)
	}
	if t.Note != "" {
		b.WriteString("\n" + wrap(t.Note, 90) + "\n")
	}
	return b.String()
}

func (s *section) markdownChecks() string {
	t := table{Columns: []string{"figure", "fleetcall", "peer", "ratio", "target", ""}}
	for _, c := range s.Checks {
		t.add(strings.TrimSpace(c.What), c.Ours, c.Peer, c.Ratio, c.Target, c.verdict())
	}
	return t.markdown()
}

// Units. Times are nanoseconds.

func ns(v float64) string { return strconv.FormatFloat(v, 'f', 0, 64) + " ns" }

func milliseconds(v float64) string { return fmt.Sprintf("%.2f ms", v/1e6) }

func microseconds(v float64) string { return fmt.Sprintf("%.0f µs", v/1e3) }

func perSecond(v float64) string { return thousands(int(v)) + "/s" }

func count(v float64) string {
	return strings.TrimSuffix(strings.TrimSuffix(fmt.Sprintf("%.2f", v), "0"), ".0")
}

func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size returns a number of bytes in the unit that reads best.
func size(bytes float64) string {
	for _, unit := range []string{"B", "KiB", "MiB"} {
		if bytes < 1024 {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", bytes), ".0") + " " + unit
		}
		bytes /= 1024
	}
	return fmt.Sprintf("%.1f GiB", bytes)
}
