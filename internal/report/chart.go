package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/fleetcall/fleetcall/internal/load"
)

// The size of a chart without its labels, in units of the SVG.
const (
	chartWidth  = 600.0
	chartHeight = 160.0
)

// chart is a row of columns with lines over them.
type chart struct {
	Columns []column
	Lines   []line
	Top     string    // the value that the full height stands for
	Right   string    // the same for the lines; empty: there are none
	Ticks   [3]string // below the left end, the middle and the right end
}

type column struct {
	X, Width, Y, Height float64
	BadY, BadHeight     float64 // the part of failed requests
	Title               string
}

type line struct {
	Class  string
	Points string
}

func histogram(r *load.Result) chart {
	most := 1
	for _, b := range r.Histogram {
		most = max(most, b.Count)
	}
	c := chart{Top: thousands(int64(most)) + " answers"}
	width := chartWidth / float64(max(len(r.Histogram), 1))
	for i, b := range r.Histogram {
		height := barHeight(float64(b.Count), float64(most))
		c.Columns = append(c.Columns, column{
			X: round(float64(i) * width), Width: round(width * 0.94), Y: round(chartHeight - height), Height: height,
			Title: fmt.Sprintf("%s to %s: %s", milliseconds(b.From), milliseconds(b.To), thousands(int64(b.Count))),
		})
	}
	if n := len(r.Histogram); n > 0 {
		first, last := r.Histogram[0].From, r.Histogram[n-1].To
		c.Ticks = [3]string{milliseconds(first), milliseconds((first + last) / 2), milliseconds(last)}
	}
	return c
}

func timeline(r *load.Result) chart {
	most, slowest := 1, time.Microsecond
	for _, s := range r.Timeline {
		most, slowest = max(most, s.OK+s.Failed), max(slowest, s.Max)
	}
	n := max(len(r.Timeline), 1)
	c := chart{
		Top:   thousands(int64(most)) + " ended",
		Right: milliseconds(slowest),
		Ticks: [3]string{"0", milliseconds(r.IntervalWidth * time.Duration(n) / 2), milliseconds(r.IntervalWidth * time.Duration(n))},
	}
	width := chartWidth / float64(n)
	average, worst := line{Class: "average"}, line{Class: "slowest"}
	for i, s := range r.Timeline {
		good, bad := barHeight(float64(s.OK), float64(most)), barHeight(float64(s.Failed), float64(most))
		c.Columns = append(c.Columns, column{
			X: round(float64(i) * width), Width: round(width * 0.94),
			Y: round(chartHeight - good), Height: good, BadY: round(chartHeight - good - bad), BadHeight: bad,
			Title: fmt.Sprintf("from %s: %s right, %s failed, average %s, slowest %s", milliseconds(s.Start),
				thousands(int64(s.OK)), thousands(int64(s.Failed)), milliseconds(s.Average), milliseconds(s.Max)),
		})
		if s.Max == 0 {
			continue // no request had a response
		}
		x := round((float64(i) + 0.5) * width)
		average.Points += fmt.Sprintf("%g,%g ", x, round(chartHeight-barHeight(float64(s.Average), float64(slowest))))
		worst.Points += fmt.Sprintf("%g,%g ", x, round(chartHeight-barHeight(float64(s.Max), float64(slowest))))
	}
	c.Lines = []line{worst, average}
	return c
}

// bar shows the value of one run.
type bar struct {
	Name  string
	Value string
	Y     float64
	Width float64
}

// comparison shows one value of all runs.
type comparison struct {
	Title  string
	Bars   []bar
	Height float64
}

// comparisons returns comparisons of the values in which the runs differ most.
func comparisons(runs []Run) []comparison {
	var all []comparison
	add := func(title string, value func(Run) (float64, string)) {
		c := comparison{Title: title, Height: float64(24 * len(runs))}
		most := 0.0
		for _, r := range runs {
			v, _ := value(r)
			most = max(most, v)
		}
		for i, r := range runs {
			v, text := value(r)
			c.Bars = append(c.Bars, bar{Name: r.Name, Value: text, Y: float64(24 * i), Width: round(v / max(most, 1e-9) * 380)})
		}
		all = append(all, c)
	}
	add("Queries the database saw", func(r Run) (float64, string) {
		if r.Queries == nil {
			return 0, "not known"
		}
		return float64(*r.Queries), thousands(*r.Queries)
	})
	add("Latency, p99", func(r Run) (float64, string) {
		return float64(r.Result.Latency.P99), milliseconds(r.Result.Latency.P99)
	})
	add("Requests per second", func(r Run) (float64, string) {
		return r.Result.PerSecond(), fmt.Sprintf("%.1f", r.Result.PerSecond())
	})
	return all
}

// barHeight returns the height of a column. It is at least 1 for every part above zero,
// so that the column can be seen.
func barHeight(part, whole float64) float64 {
	if part <= 0 {
		return 0
	}
	return round(max(part/whole*chartHeight, 1))
}

func round(x float64) float64 { return math.Round(x*100) / 100 }

func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 1, 64) + " ms"
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// labelCount is a label and the number of its occurrences.
type labelCount struct {
	Label string
	Count int
}

func counts(of map[string]int) []labelCount {
	var all []labelCount
	for _, label := range slices.Sorted(maps.Keys(of)) {
		all = append(all, labelCount{label, of[label]})
	}
	return all
}
