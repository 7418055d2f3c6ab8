package chaos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/proof/history"
)

// crowdKeys is how many keys there are that calls for very many keys ask for: so many wait
// at once, and most of them for another replica.
const crowdKeys = 200

// crowdKey is what the names of such keys have in common.
const crowdKey = "crowd-"

// How the keys of one run of a function for many end, where not all end alike.
const (
	someMissing ending = iota + 100 // the function returns nothing for one in three keys
	someFail                        // one in three keys has an error of its own
)

// randomBatch makes a call for many keys: most often a few of those that single calls ask
// for too, and now and then very many of those that nobody asks for singly.
func randomBatch(r *rand.Rand, prefix string) (keys []string, p plan) {
	if r.IntN(6) == 0 {
		first, n := r.IntN(crowdKeys), 40+r.IntN(80)
		for i := range n {
			keys = append(keys, fmt.Sprint(prefix, crowdKey, (first+i)%crowdKeys))
		}
	} else {
		for range 2 + r.IntN(12) {
			keys = append(keys, prefix+randomKey(r)) // one may be there twice
		}
	}
	p = randomPlan(r, len(keys) <= 4 && strings.Contains(keys[0], "warm"))
	switch r.IntN(8) {
	case 0:
		p.function.ending = someMissing
	case 1:
		p.function.ending = someFail
	}
	return keys, p
}

// manyFunc is a function for many keys.
type manyFunc = func(ctx context.Context, keys []string) (map[string]string, error)

// batch is one call for many keys.
type batch struct {
	name     string
	function behaviour

	mu         sync.Mutex
	executions map[string]string // by key, of the latest run
	flights    map[string]string // by key, whose result it got
	panicked   map[string]string // by key, executions that have panicked
	runs       map[string]*run   // by execution
}

// run is one run of a function for many keys.
type run struct {
	running int              // keys whose end is not written down
	ended   []history.Record // of the others
}

// batchKey is of a context: the *batch whose call it belongs to.
type batchKey struct{}

func batchOf(ctx context.Context) *batch {
	b, _ := ctx.Value(batchKey{}).(*batch)
	return b
}

func (b *batch) begins(key, execution string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.executions[key] = execution
}

// ends notes that the end of an execution is written down. It returns what is written of
// all that ran with it when that is the last of them, else nil.
func (b *batch) ends(record history.Record) []history.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	of := b.runs[record.Execution]
	if of == nil { // its function has not been called
		return []history.Record{record}
	}
	delete(b.runs, record.Execution)
	of.running--
	of.ended = append(of.ended, record)
	if of.running > 0 {
		return nil
	}
	return of.ended
}

func (b *batch) got(key, flight string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flights[key] = flight
}

// run is the function.
func (b *batch) run(ctx context.Context, keys []string) (map[string]string, error) {
	names, together := map[string]string{}, &run{running: len(keys)}
	b.mu.Lock()
	for _, key := range keys {
		names[key] = b.executions[key]
		b.runs[b.executions[key]] = together
	}
	b.mu.Unlock()
	if err := b.function.wait(ctx); err != nil {
		return nil, fmt.Errorf("executions %s: %w", namesOf(names), err)
	}
	switch b.function.ending {
	case returnsKnownError:
		return nil, fmt.Errorf("executions %s: %w", namesOf(names), errKnown)
	case returnsOtherError:
		return nil, fmt.Errorf("executions %s: an error that nobody registered", namesOf(names))
	case panics:
		b.mu.Lock()
		maps.Copy(b.panicked, names)
		b.mu.Unlock()
		panic("executions " + namesOf(names))
	}
	return b.values(names)
}

// values are what the function returns for the keys, as its ending says.
func (b *batch) values(names map[string]string) (map[string]string, error) {
	values, failed := map[string]string{}, coalesce.BatchError{}
	for i, key := range slices.Sorted(maps.Keys(names)) {
		switch {
		case i%3 > 0:
		case b.function.ending == someMissing:
			continue
		case b.function.ending == someFail:
			failed[key] = fmt.Errorf("executions %s: %w", namesOf(map[string]string{key: names[key]}), errKnown)
			continue
		}
		values[key] = valueOf(names[key], b.function.size)
	}
	if len(failed) > 0 {
		return values, failed
	}
	return values, nil
}

// namesOf names the executions of one run for many keys.
func namesOf(names map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(names)) {
		_, _ = fmt.Fprintf(&b, "<%s=%s>", key, names[key])
	}
	return b.String()
}

// executionIn returns which execution a text names for the key: that of its own function,
// or of one for many keys.
func executionIn(text, key string) string {
	if _, after, ok := strings.Cut(text, "<"+key+"="); ok {
		execution, _, _ := strings.Cut(after, ">")
		return execution
	}
	return executionOf(text)
}

// doMany makes one call for many keys, and writes down for each how it went.
func (w *worker) doMany(keys []string, p plan) {
	n := w.calls.Add(1)
	b := &batch{
		name: fmt.Sprintf("%s/b%d", w.config.Process, n), function: p.function,
		executions: map[string]string{}, flights: map[string]string{}, panicked: map[string]string{}, runs: map[string]*run{},
	}
	ctx, deadline, cancel := p.context(context.WithValue(context.Background(), batchKey{}, b))
	defer cancel()
	records := map[string]history.Record{}
	for i, key := range keys {
		if _, twice := records[key]; !twice {
			records[key] = history.Record{Kind: history.Called, Key: key, Call: fmt.Sprintf("%s/%d", b.name, i), Batch: b.name, Deadline: deadline}
			w.recorder.write(records[key])
		}
	}
	results, err := w.safelyMany(ctx, keys, b)
	for _, record := range records {
		record.Kind, record.Deadline = history.Returned, 0
		b.outcome(ctx, &record, results, err)
		w.recorder.write(record)
	}
	for key := range results {
		if _, asked := records[key]; !asked {
			panic(fmt.Sprintf("chaos: a call for many keys brought %q, for which nobody had asked", key))
		}
	}
}

// outcome fills in what came of a key.
func (b *batch) outcome(ctx context.Context, record *history.Record, results map[string]coalesce.Result[string], err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := record.Key
	record.Flight = b.flights[key]
	result, there := results[key]
	var panicked *coalesce.PanicError
	switch {
	case there:
		record.Role, record.Error = result.Role.String(), message(result.Err)
		record.Outcome, record.Execution = returned(ctx, key, result.Val, result.Err)
	case errors.As(err, &panicked):
		record.Outcome, record.Error = history.Unwound, message(err)
		if execution := executionIn(err.Error(), key); execution != "" && b.panicked[key] == execution {
			record.Outcome, record.Execution, record.Flight = history.Panic, execution, ""
		}
	default:
		record.Outcome, record.Error = history.Strange, "a key is missing: "+message(err)
	}
}

// safelyMany makes a panic of the function an error.
func (w *worker) safelyMany(ctx context.Context, keys []string, b *batch) (results map[string]coalesce.Result[string], err error) {
	defer func() {
		if panicked, ok := recover().(*coalesce.PanicError); ok {
			results, err = nil, panicked
		}
	}()
	return w.group.DoMany(ctx, keys, b.run)
}

// context returns the context of a call, and when it ends, as a record says it.
func (p plan) context(parent context.Context) (ctx context.Context, deadline int64, cancel context.CancelFunc) {
	if p.patience == 0 {
		return parent, 0, func() {}
	}
	ends := time.Now().Add(p.patience) // the record must not name a moment before the context's
	if p.deadline {
		ctx, cancel = context.WithDeadline(parent, ends)
	} else {
		ctx, cancel = context.WithCancel(parent)
		time.AfterFunc(p.patience, cancel)
	}
	return ctx, history.At(ends), cancel
}
