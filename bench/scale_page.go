package main

import (
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

// scalePart is the part that make scale measures. Its place in benchmarks.md is between two
// marks: make bench, which does not measure it, leaves what stands there.
const (
	scalePart  = "scale"
	scaleBegin = "<!-- make scale writes from here -->\n"
	scaleEnd   = "<!-- to here -->\n"
)

// scaleText is the text around the figures of large fleets.
//
//go:embed scale.md.tmpl
var scaleSource string

var scaleText = template.Must(template.New("scale").Parse(scaleSource))

var errNoPlace = errors.New("benchmarks.md has no place for what make scale measures: make bench writes one")

// writeScale puts what was measured into its place in benchmarks.md, and leaves the rest.
func (f *findings) writeScale(docs string, replicas int, load string, took time.Duration) error {
	var section strings.Builder
	view := f.view(took)
	err := scaleText.Execute(&section, map[string]any{"Figures": view.Section[scalePart], "Replicas": replicas, "View": view, "Load": load})
	if err != nil {
		return err
	}
	path := filepath.Join(docs, "benchmarks.md")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(text), scaleBegin)
	_, after, ends := strings.Cut(rest, scaleEnd)
	if !begins || !ends {
		return errNoPlace
	}
	return os.WriteFile(path, []byte(before+scaleBegin+section.String()+scaleEnd+after), 0o644)
}

// keptScale returns what make scale has written before into benchmarks.md.
func keptScale(docs string) string {
	text, err := os.ReadFile(filepath.Join(docs, "benchmarks.md"))
	if err == nil {
		_, rest, begins := strings.Cut(string(text), scaleBegin)
		if kept, _, ends := strings.Cut(rest, scaleEnd); begins && ends {
			return scaleBegin + kept + scaleEnd
		}
	}
	return fmt.Sprint(scaleBegin, "Not measured yet: `make scale REPLICAS=200`.\n", scaleEnd)
}
