package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/internal/process"
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

func TestEveryLibraryRunsTheFunctionOfABurst(t *testing.T) {
	staying, leaving := localGroups()
	for _, groups := range []map[string]doLocal{staying, leaving} {
		for name, do := range groups {
			if took := burst(do, 100); took < float64(time.Millisecond) {
				t.Errorf("%s: the burst was back after %v, before its function's end", name, time.Duration(took))
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
	us := startBeside()
	defer us.close()
	recorded := recordSteps(us.addr, us.call, 2)
	for i, pair := range recorded {
		now, err := us.client.Do(t.Context(), pair.join...).Int64() // of a key that is free
		if err != nil || now <= 0 {
			t.Errorf("join %d is answered %v, %v; want Redis' time: it leads", i, now, err)
		}
	}
	for i, pair := range recorded {
		finish, err := us.client.Do(t.Context(), pair.finish...).Int()
		if err != nil || finish != 1 {
			t.Errorf("finish %d is answered %v, %v; want that it held its lease", i, finish, err)
		}
	}
}

func TestThePageShowsEveryFigureAndPlot(t *testing.T) {
	var b bench
	s := b.section("local", "Local tier")
	s.ratio("too slow", 300e6, 100e6, "some/peer", 1.1, false, milliseconds)
	s.limit("few enough", 1, 2)
	s.Tables = append(s.Tables, table{Title: "A table", Columns: []string{"a"}, Rows: [][]string{{"cell"}}})
	l := line{Name: "p50"}
	l.add(1, 2)
	l.add(1000, 3)
	s.Charts = append(s.Charts, chart{File: "chart.svg", Title: "A chart", Lines: []line{l}})
	b.Facts.PairCPU = 1e3
	found := findings{Facts: facts{Waiter: 2048}} // another part's
	if err := found.add(value(json.Marshal(b.findings))); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := found.writePage(dir, time.Minute); err != nil {
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
		"holds 2 KiB", "take 1 µs",
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

// TestAShortRunWritesThePage runs the program as make bench does, each part in a
// process of its own, with rounds that are too short for figures.
func TestAShortRunWritesThePage(t *testing.T) {
	dir := t.TempDir()
	bench, binary := filepath.Join(dir, "bench"), filepath.Join(dir, "fleetcall")
	for program, source := range map[string]string{bench: ".", binary: "../cmd/fleetcall"} {
		build := exec.Command("go", "build", "-o", program, ".")
		build.Dir = source
		if output, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, output)
		}
	}
	var output bytes.Buffer
	run, err := process.Start(process.Spec{Path: bench, Args: []string{"-quick", "-binary", binary, "-docs", dir}, Stdout: &output, Stderr: &output})
	if err != nil {
		t.Fatal(err)
	}
	<-run.Done()
	if err := run.Err(); err != nil {
		t.Fatalf("bench: %v\n%s", err, output.String())
	}
	text, err := os.ReadFile(filepath.Join(dir, "benchmarks.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"herd of 1,000 on one key", "one SET and one PUBLISH behind x/sync", "lone caller, p50", "different keys, 256 at once",
		"commands of a flight, hot key | 4 |", "Replicas: one flight", "1 in 1,000 writes held", "One hot product", "prediction's error, all keys",
		"lone request, p50", "follower at another replica, after the leader, p99", "A crowd asks for one page",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(string(text), "<no value>") {
		t.Error("the page names a section that no part has")
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
