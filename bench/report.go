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
	part   string // as -only names it
	title  string
	checks []check
	tables []table
	charts []chart
	took   time.Duration
}

// check is one figure beside its target and its peer.
type check struct {
	what, ours, peer, ratio, target string
	met                             bool
}

func (c check) verdict() string {
	if c.met {
		return "met"
	}
	return "MISSED"
}

// measured is the figure in a sentence's end.
func (c check) measured() string {
	if c.ratio == "" {
		return c.ours + ", target " + c.target
	}
	return c.ours + " beside " + c.peer + ", ratio " + c.ratio + ", target " + c.target
}

type table struct {
	title   string
	columns []string
	rows    [][]string
	note    string
}

func (t *table) add(row ...string) { t.rows = append(t.rows, row) }

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
	s.checks = append(s.checks, check{
		what: what, ours: unit(ours), peer: unit(peer) + " " + peerName,
		ratio: fmt.Sprintf("%.2f", ratio), target: fmt.Sprintf("%s %.2f", sign, limit), met: met,
	})
}

// limit checks a figure that needs no peer.
func (s *section) limit(what string, ours, limit float64) {
	s.checks = append(s.checks, check{
		what: what, ours: count(ours), peer: "–", ratio: "", target: "≤ " + count(limit), met: ours <= limit,
	})
}

func (s *section) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s  (measured in %s)\n", strings.ToUpper(s.title), s.took.Round(time.Second))
	if len(s.checks) > 0 {
		rows := [][]string{}
		for _, c := range s.checks {
			rows = append(rows, []string{c.what, c.ours, c.peer, c.ratio, c.target, c.verdict()})
		}
		printTable(w, table{columns: []string{"figure", "fleetcall", "peer", "ratio", "target", ""}, rows: rows})
	}
	for _, t := range s.tables {
		printTable(w, t)
	}
}

func printTable(w io.Writer, t table) {
	widths := make([]int, len(t.columns))
	for _, row := range append([][]string{t.columns}, t.rows...) {
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
	if t.title != "" {
		fmt.Fprintln(w, t.title)
	}
	fmt.Fprintln(w, line(t.columns))
	for _, row := range t.rows {
		fmt.Fprintln(w, line(row))
	}
	if t.note != "" {
		fmt.Fprintln(w, wrap(t.note, 100))
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
	if t.title != "" {
		fmt.Fprintf(&b, "**%s**\n\n", t.title)
	}
	line := func(row []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | ")) }
	line(t.columns)
	b.WriteString("|" + strings.Repeat("---|", len(t.columns)) + "\n")
	for _, row := range t.rows {
		line(row)
	}
	if t.note != "" {
		b.WriteString("\n" + wrap(t.note, 90) + "\n")
	}
	return b.String()
}

func (s *section) markdownChecks() string {
	t := table{columns: []string{"figure", "fleetcall", "peer", "ratio", "target", ""}}
	for _, c := range s.checks {
		t.add(strings.TrimSpace(c.what), c.ours, c.peer, c.ratio, c.target, c.verdict())
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
