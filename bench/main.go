// Command bench measures fleetcall beside its peers and writes what it measured
// to docs/benchmarks.md, with plots.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"github.com/fleetcall/fleetcall/internal/process"
	"github.com/fleetcall/fleetcall/internal/rig"
)

// bench is one run.
type bench struct {
	binary string // fleetcall's path
	quick  bool   // short rounds: to see that it works, not for figures
	// replicas is the size of a large fleet.
	replicas int
	findings
}

// findings are what was measured. A part's go from its process to the one that
// writes the page as JSON.
type findings struct {
	Sections []*section
	Facts    facts
}

// facts are figures that the page's text quotes.
type facts struct {
	FlightCPU, ReplicaCPU float64 `json:",omitzero"` // nanoseconds of Redis for a flight, and for each of its replicas
	PairCPU               float64 `json:",omitzero"` // nanoseconds of a busy Redis for a join and a finish
	Waiter, Flight        float64 `json:",omitzero"` // bytes of memory
}

// add adds a part's findings, which are JSON.
func (f *findings) add(part []byte) error {
	found := findings{Facts: f.Facts} // what the part leaves out stays
	if err := json.Unmarshal(part, &found); err != nil {
		return fmt.Errorf("reading what was measured: %w", err)
	}
	f.Sections, f.Facts = append(f.Sections, found.Sections...), found.Facts
	return nil
}

// rounds returns how many rounds to measure, n when there is time.
func (b *bench) rounds(n int) int {
	if b.quick {
		return 1
	}
	return n
}

// section adds a section to the report.
func (b *bench) section(part, title string) *section {
	s := &section{Part: part, Title: title}
	b.Sections = append(b.Sections, s)
	return s
}

var parts = []struct {
	name    string
	measure func(*bench)
	apart   bool // it is measured when it is named, and has a place of its own on the page
}{
	{name: "local", measure: measureLocal},
	{name: "fleet", measure: measureFleet},
	{name: "large", measure: measureLarge},
	{name: "lone", measure: measureLone},
	{name: "keys", measure: measureKeys},
	{name: "batch", measure: measureBatch},
	{name: "adaptive", measure: measureAdaptive},
	{name: "growth", measure: measureGrowth},
	{name: "shadow", measure: measureShadow},
	{name: "trouble", measure: measureTrouble},
	{name: "program", measure: measureProgram},
	{name: "http", measure: measureHTTP},
	{name: scalePart, measure: measureScale, apart: true},
}

// options are the command line's.
type options struct {
	binary, docs, only, profile string
	pings, bare                 string
	quick, json                 bool
	replicas                    int
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "../bin/fleetcall", "path of the program, as make build makes it")
	flag.StringVar(&o.docs, "docs", "", "write benchmarks.md and its plots into this directory")
	flag.StringVar(&o.only, "only", "", "measure these parts alone, by commas: local, fleet, large, lone, keys, batch, adaptive, growth, shadow, trouble, program, http, scale")
	flag.IntVar(&o.replicas, "replicas", 20, "the size of the fleet of -only scale")
	flag.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of the only part to this file")
	flag.BoolVar(&o.quick, "quick", false, "short rounds: to see that it works, not for figures")
	flag.StringVar(&o.pings, "pings", "", "only send PINGs to the Redis at this address, and answer each line of the standard input with the longest since, in ns")
	flag.StringVar(&o.bare, "bare", "", "only be a bare reverse proxy for the server at this URL, until the standard input ends")
	flag.BoolVar(&o.json, "json", false, "print the only part's findings as JSON")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures the parts. Each has a process of its own: what one leaves behind,
// such as the runtime's memory of a hundred thousand goroutines, slows what is
// measured after it.
func run(o options) error {
	if o.pings != "" {
		return ping(o.pings, os.Stdin, os.Stdout)
	}
	if o.bare != "" {
		return serveBare(o.bare, os.Stdin, os.Stdout)
	}
	names, err := o.parts()
	if err != nil {
		return err
	}
	if o.docs != "" && o.only != "" && o.only != scalePart {
		return errors.New("-docs wants all parts, or scale alone: leave -only out")
	}
	if o.replicas < 2 {
		return errors.New("-replicas wants 2 at the least")
	}
	if o.json || o.profile != "" {
		if len(names) != 1 {
			return errors.New("-json and -cpuprofile want one part: -only")
		}
		return measurePart(o, names[0])
	}
	for _, line := range machine() {
		fmt.Println(line)
	}
	begin, load := time.Now(), loadAverage()
	var all findings
	for _, name := range names {
		part, err := inProcess(o, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		before := len(all.Sections)
		if err := all.add(part); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, s := range all.Sections[before:] {
			s.print(os.Stdout)
		}
	}
	if o.docs == "" {
		return nil
	}
	if o.only == scalePart {
		return all.writeScale(o.docs, o.replicas, load, time.Since(begin))
	}
	return all.writePage(o.docs, time.Since(begin))
}

// parts returns which parts to measure.
func (o options) parts() ([]string, error) {
	var known, usual []string
	for _, part := range parts {
		known = append(known, part.name)
		if !part.apart {
			usual = append(usual, part.name)
		}
	}
	if o.only == "" {
		return usual, nil
	}
	names := slices.Compact(slices.Sorted(strings.SplitSeq(o.only, ",")))
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("-only names %q, which is none of %s", name, strings.Join(known, ", "))
		}
	}
	return names, nil
}

// inProcess measures a part in a process of its own and returns its findings,
// as JSON.
func inProcess(o options, name string) ([]byte, error) {
	var out bytes.Buffer
	child, err := process.Start(process.Spec{
		Path:   value(os.Executable()),
		Args:   []string{"-json", "-only", name, "-binary", o.binary, fmt.Sprintf("-quick=%v", o.quick), fmt.Sprintf("-replicas=%d", o.replicas)},
		Stdout: &out, Stderr: os.Stderr,
	})
	if err != nil {
		return nil, err
	}
	<-child.Done()
	return out.Bytes(), child.Err()
}

// measurePart measures a part in this process.
func measurePart(o options, name string) (err error) {
	defer rig.Recover(&err)
	if o.profile != "" {
		file, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	b := &bench{binary: o.binary, quick: o.quick, replicas: o.replicas}
	begin := time.Now()
	for _, part := range parts {
		if part.name == name {
			part.measure(b)
		}
	}
	for _, s := range b.Sections {
		s.Took = time.Since(begin)
		if !o.json {
			s.print(os.Stdout)
		}
	}
	if !o.json {
		return nil
	}
	return json.NewEncoder(os.Stdout).Encode(b.findings)
}
