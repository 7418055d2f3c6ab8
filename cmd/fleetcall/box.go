package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fleetcall/fleetcall/internal/load"

	"golang.org/x/term"
)

// box is a titled table of labels and values.
type box struct {
	title string
	rows  [][2]string
}

func (b *box) add(label, value string) { b.rows = append(b.rows, [2]string{label, value}) }

// lines draws the box width columns wide.
func (b *box) lines(width int) []string {
	inner := width - 4
	out := []string{"┌─ " + b.title + " " + strings.Repeat("─", max(width-5-utf8.RuneCountInString(b.title), 0)) + "┐"}
	for _, row := range b.rows {
		gap := max(inner-utf8.RuneCountInString(row[0])-utf8.RuneCountInString(row[1]), 1)
		out = append(out, "│ "+row[0]+strings.Repeat(" ", gap)+row[1]+" │")
	}
	return append(out, "└"+strings.Repeat("─", width-2)+"┘")
}

// width is what the box needs.
func (b *box) width() int {
	const least = 26 // three beside one another take 80 columns
	widest := max(least, utf8.RuneCountInString(b.title)+5)
	for _, row := range b.rows {
		widest = max(widest, utf8.RuneCountInString(row[0])+utf8.RuneCountInString(row[1])+5)
	}
	return widest
}

// drawBoxes draws boxes of one height beside one another where the columns
// allow, else below one another.
func drawBoxes(boxes []box, columns int) string {
	var s strings.Builder
	width := 0
	for _, b := range boxes {
		width = max(width, b.width())
	}
	if columns < len(boxes)*(width+1)-1 {
		for _, b := range boxes {
			for _, line := range b.lines(min(max(columns, 24), 60)) {
				s.WriteString(line + "\n")
			}
		}
		return s.String()
	}
	var drawn [][]string
	for _, b := range boxes {
		drawn = append(drawn, b.lines(width))
	}
	for i := range drawn[0] {
		for j := range drawn {
			if j > 0 {
				s.WriteByte(' ')
			}
			s.WriteString(drawn[j][i])
		}
		s.WriteByte('\n')
	}
	return s.String()
}

// columns returns the width of the terminal on standard output, and that of a
// common one when it is none.
func columns() int {
	if width, _, err := term.GetSize(int(os.Stdout.Fd())); err == nil && width > 0 {
		return width
	}
	return 80
}

// wrap breaks a sentence between words into lines that fit the columns.
func wrap(sentence string, columns int) string {
	var s strings.Builder
	used := 0
	for i, word := range strings.Fields(sentence) {
		width := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case used+1+width > columns:
			s.WriteString("\n  ")
			used = 2
		default:
			s.WriteByte(' ')
			used++
		}
		s.WriteString(word)
		used += width
	}
	return s.String()
}

// addResult adds what a load measured.
func (b *box) addResult(r *load.Result) {
	b.add("Requests", thousands(int64(r.Requests)))
	b.add("  answered right", thousands(int64(r.OK)))
	b.add("  failed", thousands(int64(r.Failed)))
	b.add("Duration", seconds(r.Duration))
	b.add("Requests/s", fmt.Sprintf("%.1f", r.PerSecond()))
	b.add("Latency avg", milliseconds(r.Latency.Average))
	b.add("  p50", milliseconds(r.Latency.P50))
	b.add("  p95", milliseconds(r.Latency.P95))
	b.add("  p99", milliseconds(r.Latency.P99))
	b.add("  slowest", milliseconds(r.Latency.Max))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// percent has one decimal. As in /stats, only what is all is 100.0%.
func percent(part, whole int64) string {
	if whole == 0 {
		return "0.0%"
	}
	text := fmt.Sprintf("%.1f%%", 100*float64(part)/float64(whole))
	if text == "100.0%" && part < whole {
		return "99.9%"
	}
	return text
}
