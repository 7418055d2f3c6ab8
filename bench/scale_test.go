package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestScaleWritesItsPlaceOfThePageAlone measures a small fleet, as make scale does a large
// one, and has the page written once more, as make bench does.
func TestScaleWritesItsPlaceOfThePageAlone(t *testing.T) {
	b := &bench{quick: true, replicas: 4}
	measureScale(b)
	dir := t.TempDir()
	if err := b.writeScale(dir, b.replicas, loadAverage(), time.Minute); err == nil {
		t.Error("there was no page, and nothing was said")
	}
	page := func() string {
		text, err := os.ReadFile(filepath.Join(dir, "benchmarks.md"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var others findings
	if err := others.writePage(dir, time.Minute); err != nil {
		t.Fatal(err)
	}
	without := page()
	if !strings.Contains(without, "Not measured yet") {
		t.Error("the page does not say that large fleets were not measured")
	}
	if err := b.writeScale(dir, b.replicas, loadAverage(), time.Minute); err != nil {
		t.Fatal(err)
	}
	with := page()
	for _, want := range []string{
		"make scale REPLICAS=4", "4 replicas start at once", "executions a flight | 1 |", "subscriptions of 2 replicas cut, 20 keys each: executions | 20 |",
		"one flight of 4s, 2 replicas follow: peeks", "keys idle: bytes out of Redis", "keys at once, one replica: fallbacks | 0 |", "Payload: one flight",
	} {
		if !strings.Contains(with, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	before, rest, _ := strings.Cut(without, scaleBegin)
	_, after, _ := strings.Cut(rest, scaleEnd)
	if !strings.HasPrefix(with, before) || !strings.HasSuffix(with, after) {
		t.Error("more than its place was written")
	}
	if err := others.writePage(dir, time.Minute); err != nil {
		t.Fatal(err)
	}
	if page() != with {
		t.Error("make bench did not leave what make scale had written")
	}
}
