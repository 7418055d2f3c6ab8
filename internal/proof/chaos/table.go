package chaos

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

var heads = []string{"fault", "times", "calls", "executions", "a round", "per call", "hurt", "wait median", "worst", "bound"}

// cells returns the lines of a row: a second one is of arriving callers.
func (r Row) cells() [][]string {
	lines := [][]string{{
		r.Fault, strconv.Itoa(r.Injected), strconv.Itoa(r.Calls), strconv.Itoa(r.Executions), r.price(),
		fmt.Sprintf("%d / %d", r.PerCallMedian, r.PerCallMax), strconv.Itoa(r.Hurt),
		milliseconds(median(r.Waits), len(r.Waits)), marked(worst(r.Waits), len(r.Waits), r.Limit), bounded(r.Bound, r.Limit),
	}}
	if r.ArrivingLimit > 0 {
		lines = append(lines, []string{
			"· arriving callers", "", "", "", "", "", "",
			milliseconds(median(r.Arriving), len(r.Arriving)), marked(worst(r.Arriving), len(r.Arriving), r.ArrivingLimit),
			bounded(r.ArrivingBound, r.ArrivingLimit),
		})
	}
	return lines
}

// price is how many executions a round of callers had, and may have.
func (r Row) price() string {
	if r.Rounds == 0 {
		return "–"
	}
	text := fmt.Sprintf("%.2f", float64(r.Executions)/float64(r.Rounds))
	if r.Most > 0 {
		text += fmt.Sprintf(" ≤ %g", r.Most)
	}
	if r.tooDear(0) {
		text += " !"
	}
	return text
}

// tooDear tells whether more executions than so many were beyond what the rounds of
// callers may have.
func (r Row) tooDear(spare int) bool {
	return r.Most > 0 && float64(r.Beyond) > (r.Most-1)*float64(r.Rounds)+float64(spare)
}

func milliseconds(d time.Duration, samples int) string {
	if samples == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

// roundTrip is what a bound allows for a reply and for a goroutine to run.
const roundTrip = 10 * time.Millisecond

// marked marks a wait that exceeds its bound.
func marked(d time.Duration, samples int, limit time.Duration) string {
	text := milliseconds(d, samples)
	if limit > 0 && d > limit+roundTrip {
		text += " !"
	}
	return text
}

func bounded(text string, limit time.Duration) string {
	if limit == 0 {
		return "–"
	}
	return fmt.Sprintf("%d ms: %s", limit.Milliseconds(), text)
}

// Print writes the table as plain text.
func Print(w io.Writer, rows []Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, strings.Join(heads, "\t"))
	for _, row := range rows {
		for _, line := range row.cells() {
			_, _ = fmt.Fprintln(t, strings.Join(line, "\t"))
		}
	}
	return t.Flush()
}

// Markdown writes the table as Markdown.
func Markdown(w io.Writer, rows []Row) error {
	var b strings.Builder
	b.WriteString("| " + strings.Join(heads, " | ") + " |\n|" + strings.Repeat("---|", len(heads)) + "\n")
	for _, row := range rows {
		for _, line := range row.cells() {
			b.WriteString("| " + strings.Join(line, " | ") + " |\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
