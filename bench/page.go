package main

import (
	_ "embed"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

// page is the text around the figures.
//
//go:embed page.md.tmpl
var pageSource string

var page = template.Must(template.New("benchmarks.md").Parse(pageSource))

// writePage writes benchmarks.md and its plots into a directory.
func (f *findings) writePage(docs string, took time.Duration) error {
	plots := filepath.Join(docs, "plots")
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return err
	}
	for _, s := range f.Sections {
		for _, c := range s.Charts {
			if err := c.draw(plots); err != nil {
				return err
			}
		}
	}
	var text strings.Builder
	view := f.view(took)
	view.Section[scalePart] = keptScale(docs)
	if err := page.Execute(&text, view); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(docs, "benchmarks.md"), []byte(text.String()), 0o644)
}

// view is what the page shows.
type view struct {
	Machine            []string
	Took               time.Duration
	Met, Missed        int
	MissedFigures      []string
	Section            map[string]string // checks, tables and plots by part
	Capacity           []string
	FlightCPU, EachCPU string
	Waiter, Flight     string
	PairCPU, PairRate  string
}

func (f *findings) view(took time.Duration) view {
	v := view{Machine: machine(), Took: took.Round(time.Second), Section: map[string]string{}}
	for _, s := range f.Sections {
		v.Section[s.Part] = s.markdown()
		for _, c := range s.Checks {
			if c.Met {
				v.Met++
				continue
			}
			v.Missed++
			v.MissedFigures = append(v.MissedFigures, strings.TrimSpace(c.What)+": "+c.measured())
		}
	}
	v.FlightCPU, v.EachCPU = microseconds(f.Facts.FlightCPU), microseconds(f.Facts.ReplicaCPU)
	v.PairCPU, v.PairRate = microseconds(f.Facts.PairCPU), thousands(int(1e9/max(f.Facts.PairCPU, 1)))
	v.Waiter, v.Flight = size(f.Facts.Waiter), size(f.Facts.Flight)
	for _, replicas := range []int{3, 30, 1000} {
		busy := f.Facts.FlightCPU + float64(replicas)*f.Facts.ReplicaCPU
		v.Capacity = append(v.Capacity, thousands(replicas)+" replicas: "+thousands(int(1e9/max(busy, 1)))+" flights a second")
	}
	return v
}

// markdown returns the section's checks, tables and plots.
func (s *section) markdown() string {
	var parts []string
	if len(s.Checks) > 0 {
		parts = append(parts, s.markdownChecks())
	}
	for _, t := range s.Tables {
		parts = append(parts, t.markdown())
	}
	for _, c := range s.Charts {
		parts = append(parts, "!["+c.Title+"](plots/"+c.File+")\n")
	}
	return strings.Join(parts, "\n")
}
