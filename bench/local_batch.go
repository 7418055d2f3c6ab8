package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/viccon/sturdyc"
	"github.com/vikstrous/dataloadgen"

	"github.com/fleetcall/fleetcall/coalesce/local"
)

const (
	batchSize = 100

	oursMany  = "fleetcall local, DoMany"
	sturdyAll = "viccon/sturdyc, GetOrFetchBatch"
	otterBulk = "maypok86/otter, BulkGet"
	dataload  = "vikstrous/dataloadgen, LoadAll"
)

// coldBatch is what a function brings, made before, so that only the library is measured.
type coldBatch struct {
	keys []string
	vals map[string]int
	list []int // for dataloadgen, in the order of keys
}

// coldBatches are batches that have no key in common: two of the peers are caches, and are
// to run their function each time, as ours does, without paying for a removal.
func coldBatches(n int) []coldBatch {
	batches := make([]coldBatch, n)
	for i := range batches {
		b := &batches[i]
		b.vals = map[string]int{}
		for j := range batchSize {
			key := fmt.Sprintf("product:%d", i*batchSize+j)
			b.keys, b.list, b.vals[key] = append(b.keys, key), append(b.list, j), j
		}
	}
	return batches
}

// manyGroups makes a new group of each library, with room for so many batches. The callers
// could leave.
func manyGroups(batches int) map[string]func(coldBatch) int {
	ctx, cancel := context.WithCancel(context.Background())
	_ = cancel // never called: the callers could leave, but don't
	ctx.Done() // makes the channel, which no group need pay for
	room := 2 * batches * batchSize
	var now coldBatch
	readMany := func(context.Context, []string) (map[string]int, error) { return now.vals, nil }
	readList := func(context.Context, []string) ([]int, []error) { return now.list, nil }
	var own local.Group[string, int]
	sturdy := sturdyc.New[int](room, 64, time.Hour, 10)
	same := func(id string) string { return id }
	bulk := otter.Must(&otter.Options[string, int]{MaximumSize: room})
	load := otter.BulkLoaderFunc[string, int](readMany)
	return map[string]func(coldBatch) int{
		oursMany: func(b coldBatch) int {
			now = b
			vals, err := own.DoMany(ctx, b.keys, readMany)
			must(err)
			return len(vals)
		},
		sturdyAll: func(b coldBatch) int {
			now = b
			vals, err := sturdy.GetOrFetchBatch(ctx, b.keys, same, readMany)
			must(err)
			return len(vals)
		},
		otterBulk: func(b coldBatch) int {
			now = b
			vals, err := bulk.BulkGet(ctx, b.keys, load)
			must(err)
			return len(vals)
		},
		dataload: func(b coldBatch) int {
			now = b
			// A loader lives as long as a request. It does not wait: its batch is full.
			loader := dataloadgen.NewLoader(readList, dataloadgen.WithBatchCapacity(batchSize))
			vals, err := loader.LoadAll(ctx, b.keys)
			must(err)
			return len(vals)
		},
	}
}

// measureLocalBatches adds what a hundred keys in one process cost.
func measureLocalBatches(b *bench, s *section) {
	batches := coldBatches(1_000)
	if b.quick {
		batches = batches[:50]
	}
	names := []string{oursMany, sturdyAll, otterBulk, dataload}
	var all []contender
	for _, name := range names {
		all = append(all, contender{name, func() float64 {
			do := manyGroups(len(batches))[name]
			return perOperation(len(batches), func() {
				for _, batch := range batches {
					if n := do(batch); n != batchSize {
						panic(fmt.Sprintf("%s brought %d keys", name, n))
					}
				}
			})
		}})
	}
	took := interleave(b.rounds(9), all)
	allocated := map[string]float64{}
	t := table{Title: "One process, a hundred different keys in one call, callers can leave", Columns: []string{"library", "a call", "allocations"}}
	for _, name := range names {
		do, i := manyGroups(len(batches))[name], 0
		allocated[name] = testing.AllocsPerRun(len(batches)-1, func() { do(batches[i]); i++ })
		t.add(name, microseconds(took[name]), count(allocated[name]))
	}
	best := func(of map[string]float64) string {
		best := names[1]
		for _, name := range names[2:] {
			if of[name] < of[best] {
				best = name
			}
		}
		return best
	}
	s.atMost("a hundred keys in one call", took, oursMany, best(took), 0.5, microseconds)
	s.atMost("  its allocations", allocated, oursMany, best(allocated), 0.5, count)
	s.Tables = append(s.Tables, t)
}
