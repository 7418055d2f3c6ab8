package main

import (
	"fmt"
	"image/color"
	"path/filepath"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// chart is drawn with both axes logarithmic: what is measured spans decades.
type chart struct {
	File, Title, X, Y string
	Lines             []line
}

type line struct {
	Name   string
	Points plotter.XYs
}

func (l *line) add(x, y float64) {
	if x > 0 && y > 0 { // a logarithm has no room for the rest
		l.Points = append(l.Points, plotter.XY{X: x, Y: y})
	}
}

// draw writes the chart as an SVG file into dir.
func (c chart) draw(dir string) error {
	p := plot.New()
	p.BackgroundColor = color.White
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.Title, c.X, c.Y
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	for i, l := range c.Lines {
		if len(l.Points) == 0 {
			continue
		}
		lines, points, err := plotter.NewLinePoints(l.Points)
		if err != nil {
			return fmt.Errorf("drawing %s: %w", c.File, err)
		}
		lines.Color, points.Color = plotutil.Color(i), plotutil.Color(i)
		lines.Dashes, points.Shape = plotutil.Dashes(i), plotutil.Shape(i)
		lines.Width = vg.Points(1.5)
		p.Add(lines, points)
		p.Legend.Add(l.Name, lines, points)
	}
	p.Y.Max *= 4 // room for the legend
	return p.Save(7*vg.Inch, 4.5*vg.Inch, filepath.Join(dir, c.File))
}
