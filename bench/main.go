// Command bench measures fleetcall beside its peers and writes what it measured
// to docs/benchmarks.md, with plots.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"time"

	"fleetcall/internal/testserver"
)

// bench is one run.
type bench struct {
	binary   string // fleetcall's path
	quick    bool   // short rounds: to see that it works, not for figures
	sections []*section
	facts    facts
}

// facts are figures that the page's text quotes.
type facts struct {
	flightCPU, replicaCPU float64 // nanoseconds of Redis for a flight, and for each of its replicas
	pairCPU               float64 // nanoseconds of a busy Redis for a join and a finish
	waiter, flight        float64 // bytes of memory
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
	s := &section{part: part, title: title}
	b.sections = append(b.sections, s)
	return s
}

var parts = []struct {
	name    string
	measure func(*bench)
}{
	{"fleet", measureFleet},
	{"growth", measureGrowth},
	{"program", measureProgram},
	// Last: the runtime keeps what it made for a hundred thousand goroutines, and
	// each garbage collection after it looks at that.
	{"local", measureLocal},
}

// options are the command line's.
type options struct {
	binary, docs, only, profile string
	quick                       bool
}

func main() {
	var o options
	flag.StringVar(&o.binary, "binary", "../bin/fleetcall", "path of the program, as make build makes it")
	flag.StringVar(&o.docs, "docs", "", "write benchmarks.md and its plots into this directory")
	flag.StringVar(&o.only, "only", "", "measure these parts alone, by commas: local, fleet, growth, program")
	flag.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile to this file")
	flag.BoolVar(&o.quick, "quick", false, "short rounds: to see that it works, not for figures")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(o options) (err error) {
	defer testserver.Recover(&err)
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
	for _, line := range machine() {
		fmt.Println(line)
	}
	begin := time.Now()
	b := &bench{binary: o.binary, quick: o.quick}
	for _, part := range parts {
		if o.only != "" && !strings.Contains(","+o.only+",", ","+part.name+",") {
			continue
		}
		began := time.Now()
		part.measure(b)
		s := b.sections[len(b.sections)-1]
		s.took = time.Since(began)
		s.print(os.Stdout)
	}
	if len(b.sections) == 0 {
		return errors.New("-only names no part")
	}
	if o.docs == "" {
		return nil
	}
	return b.writePage(o.docs, time.Since(begin))
}
