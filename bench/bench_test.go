package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// sturdyc's caches cannot be closed.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(),
		goleak.IgnoreAnyFunction("github.com/viccon/sturdyc.(*Client[...]).performContinuousEvictions.func1"))
}

func TestCallersAllocateWhatTheirTargetsAllow(t *testing.T) {
	staying, leaving := localGroups()
	for _, c := range []struct {
		callers string
		got     float64
		most    float64
	}{
		{"that cannot leave", allocations(staying[ours]), 1},
		{"that can leave", allocations(leaving[ours]), 3},
		{"that follow", followerAllocations(), 0},
	} {
		if c.got > c.most {
			t.Errorf("callers %s: %v allocations, want at most %v", c.callers, c.got, c.most)
		}
	}
}

func TestEveryLibraryRunsAHerdsFunction(t *testing.T) {
	staying, leaving := localGroups()
	for _, groups := range []map[string]doLocal{staying, leaving} {
		for name, do := range groups {
			if took := herd(do, 100); took < float64(time.Millisecond) {
				t.Errorf("%s: the herd was back after %v, before its function's end", name, time.Duration(took))
			}
		}
	}
}

// TestFlightsCostTheProtocolsCommandsAndRunOnce holds on every machine: the
// peers' commands depend on its speed.
func TestFlightsCostTheProtocolsCommandsAndRunOnce(t *testing.T) {
	addr, stop := startRedis()
	defer stop()
	for _, peer := range fleetPeers() {
		f := newFlights(addr, peer, fleetReplicas, 10, 50*time.Millisecond, []byte("result"))
		f.round(2)
		f.executions = 0
		commands, names := countCommands(addr, 3, f.fly)
		f.close()
		if f.executions != 3 {
			t.Errorf("%s: 3 flights ran %d functions", peer.name, f.executions)
		}
		want := map[string]float64{oursHot: 4, oursCold: 8}[peer.name] // cold: and 2 UNSUBSCRIBE 30 s later
		if want != 0 && commands != want {
			t.Errorf("%s: %v commands a flight, want %v: %v", peer.name, commands, want, names)
		}
		if commands == 0 {
			t.Errorf("%s: no command was seen", peer.name)
		}
	}
}

func TestRecordedStepsAreAFlightsOwn(t *testing.T) {
	addr, stop := startRedis()
	defer stop()
	group, stopGroup := newGroup(addr)
	defer stopGroup()
	client := newClient(addr)
	defer func() { _ = client.Close() }()
	recorded := recordSteps(addr, func(key string) {
		_, _, err := group.Do(t.Context(), key, nothing)
		must(err)
	}, 2)
	for i, pair := range recorded {
		join, err := client.Do(t.Context(), pair.join...).Slice()
		if err != nil || len(join) == 0 || join[0] != "lead" {
			t.Errorf("join %d is answered %v, %v; want lead", i, join, err)
		}
	}
	for i, pair := range recorded {
		finish, err := client.Do(t.Context(), pair.finish...).Slice()
		if err != nil || len(finish) == 0 || finish[0] != int64(1) {
			t.Errorf("finish %d is answered %v, %v; want that it held its lease", i, finish, err)
		}
	}
}

func TestThePageShowsEveryFigureAndPlot(t *testing.T) {
	b := &bench{quick: true}
	s := b.section("local", "Local tier")
	s.ratio("too slow", 300e6, 100e6, "some/peer", 1.1, false, milliseconds)
	s.limit("few enough", 1, 2)
	s.tables = append(s.tables, table{title: "A table", columns: []string{"a"}, rows: [][]string{{"cell"}}})
	l := line{name: "p50"}
	l.add(1, 2)
	l.add(1000, 3)
	s.charts = append(s.charts, chart{file: "chart.svg", title: "A chart", lines: []line{l}})
	dir := t.TempDir()
	if err := b.writePage(dir, time.Minute); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"too slow: 300.00 ms beside 100.00 ms some/peer, ratio 3.00, target ≤ 1.10",
		"| too slow | 300.00 ms | 100.00 ms some/peer | 3.00 | ≤ 1.10 | MISSED |",
		"| few enough | 1 | – |  | ≤ 2 | met |", "| cell |", "plots/chart.svg",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	svg, err := os.ReadFile(filepath.Join(dir, "plots", "chart.svg"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(svg), "<svg") || !strings.Contains(string(svg), "A chart") {
		t.Error("chart.svg is not the chart")
	}
}

func TestQuantilesAreOfTheSortedValues(t *testing.T) {
	values := []float64{9, 1, 5, 3, 7}
	for q, want := range map[float64]float64{0: 1, 0.5: 5, 0.99: 9, 1: 9} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if base, slope := fit([]float64{1, 2, 4}, []float64{5, 7, 11}); base != 3 || slope != 2 {
		t.Errorf("the line through y = 3 + 2x is %v + %vx", base, slope)
	}
}

func TestTextIsWrapped(t *testing.T) {
	text := wrap(strings.Repeat("words of a note ", 20), 30)
	for line := range strings.SplitSeq(text, "\n") {
		if len(line) > 30 {
			t.Errorf("%q has %d columns", line, len(line))
		}
	}
	if strings.Join(strings.Fields(text), " ") != strings.TrimSpace(strings.Repeat("words of a note ", 20)) {
		t.Error("words were lost")
	}
}
