package main

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestBoxesFitTheirTerminal(t *testing.T) {
	b := box{title: "distributed"}
	b.add("Database queries", "1")
	b.add("  p99", "12345.6 ms")
	boxes := []box{b, b, b}
	for _, columns := range []int{40, 79, 80, 97, 98, 100, 200} {
		drawn := drawBoxes(boxes, columns)
		lines := strings.Split(strings.TrimSuffix(drawn, "\n"), "\n")
		widest := 0
		for _, line := range lines {
			widest = max(widest, utf8.RuneCountInString(line))
		}
		if widest > min(columns, 100) {
			t.Errorf("%d columns wide on a terminal of %d:\n%s", widest, columns, drawn)
		}
		if stacked := len(lines) == 3*len(b.lines(30)); stacked != (columns < 80) {
			t.Errorf("stacked %v on a terminal of %d columns", stacked, columns)
		}
	}
}

func TestParseIDs(t *testing.T) {
	ids, err := parseIDs("1-3, 7,2")
	if err != nil || !slices.Equal(ids, []int{1, 2, 3, 7, 2}) {
		t.Errorf("%v, %v", ids, err)
	}
	for _, list := range []string{"", "0", "-1", "3-1", "a", "1,,2", "1-9999999", "1-2147483647", "2147483648"} {
		if ids, err := parseIDs(list); err == nil {
			t.Errorf("%q is read as %d ids", list, len(ids))
		}
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is written %q, want %q", n, got, want)
		}
	}
}
