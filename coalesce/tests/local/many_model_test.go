package local_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// TestBatchesBehaveAsTheirModel drives a Group with overlapping batches and single calls,
// leavers, errors, panics and forgets in random order, and compares it after each step with
// a model that does one thing at a time: who has returned with what, which functions run
// with which keys, whose context has ended, and the counts. A single call is a batch of one
// key here, or a Do.
func TestBatchesBehaveAsTheirModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ rapid.TB }{t}, func(t *rapid.T) { // see TestGroupBehavesAsItsModel
			m := &manyModel{current: map[string]*manyFlight{}}
			defer m.drain()
			t.Repeat(map[string]func(*rapid.T){
				"":       m.check,
				"batch":  m.batch,
				"do":     m.do,
				"leave":  m.leave,
				"end":    m.end,
				"forget": m.forget,
			})
		})
	})
}

type manyResults = map[string]coalesce.Result[string]

type manyModel struct {
	group   local.Group[string, string]
	current map[string]*manyFlight // what a call for the key joins
	runs    []*manyRun             // that have not ended
	calls   []*manyCall
	stats   local.Stats
}

// manyFlight is a key's part in a run.
type manyFlight struct {
	key     string
	run     *manyRun
	waiting []*manyCall
}

// manyRun is one call of a function.
type manyRun struct {
	owner   *manyCall
	flights []*manyFlight

	// Set by the function.
	ctx    context.Context
	keys   []string
	finish chan func() (map[string]string, error)
}

func (r *manyRun) unwaited() bool {
	return !slices.ContainsFunc(r.flights, func(f *manyFlight) bool { return len(f.waiting) > 0 })
}

type manyCall struct {
	single   bool // Do
	leave    context.CancelFunc
	flights  map[string]*manyFlight // that it waits for
	want     manyResults            // so far
	wantErr  error
	panics   bool // its own function has
	started  chan *manyRun
	returned chan struct{}

	// Written before returned is closed.
	got      manyResults
	gotErr   error
	panicked bool
}

func (c *manyCall) fn(ctx context.Context, keys []string) (map[string]string, error) {
	r := &manyRun{ctx: ctx, keys: slices.Clone(keys), finish: make(chan func() (map[string]string, error), 1)}
	c.started <- r
	if end := <-r.finish; end != nil {
		return end()
	}
	return nil, nil // drained
}

func (m *manyModel) batch(t *rapid.T) {
	m.call(t, rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 1, 5).Draw(t, "keys"), false)
}

func (m *manyModel) do(t *rapid.T) {
	m.call(t, []string{rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "key")}, true)
}

func (m *manyModel) call(t *rapid.T, keys []string, single bool) {
	c := &manyCall{single: single, flights: map[string]*manyFlight{}, want: manyResults{}, started: make(chan *manyRun, 10), returned: make(chan struct{})}
	ctx := context.Background()
	kind := rapid.SampledFrom([]string{"can leave", "cannot", "channel"}).Draw(t, "kind")
	if kind != "cannot" {
		ctx, c.leave = context.WithCancel(ctx)
	}
	go c.run(ctx, &m.group, keys, kind == "channel")
	synctest.Wait()
	m.calls = append(m.calls, c)
	if !single {
		m.stats.Batches++
	}
	m.join(t, c, keys)
}

func (c *manyCall) run(ctx context.Context, g *local.Group[string, string], keys []string, channel bool) {
	defer close(c.returned)
	defer func() {
		if value := recover(); value != nil {
			c.panicked = true
		}
	}()
	switch {
	case c.single:
		val, role, err := g.Do(ctx, keys[0], func(ctx context.Context) (string, error) {
			vals, err := c.fn(ctx, keys)
			return coalesce.ResultOf(vals, err, keys[0])
		})
		c.got = manyResults{keys[0]: {Val: val, Role: role, Err: err}}
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			c.gotErr = err
		}
	case channel:
		b := <-g.DoManyChan(ctx, keys, c.fn)
		c.got, c.gotErr = b.Results, b.Err
	default:
		c.got, c.gotErr = g.DoMany(ctx, keys, c.fn)
	}
}

// join has the model join keys for c, whose function must run if it leads any.
func (m *manyModel) join(t *rapid.T, c *manyCall, keys []string) {
	run := &manyRun{owner: c}
	var led []string
	for _, key := range keys {
		if c.flights[key] != nil {
			continue
		}
		f := m.current[key]
		m.stats.Requests++
		m.stats.Waiting++
		if f == nil {
			f = &manyFlight{key: key, run: run}
			m.current[key] = f
			run.flights = append(run.flights, f)
			led = append(led, key)
			m.stats.Leaders++
			m.stats.ActiveFlights++
		} else {
			m.stats.Followers++
		}
		f.waiting = append(f.waiting, c)
		c.flights[key] = f
	}
	if len(led) == 0 {
		return
	}
	if !c.single {
		m.stats.BatchRuns++
		m.stats.BatchKeys += uint64(len(led))
	}
	select {
	case real := <-c.started:
		run.ctx, run.keys, run.finish = real.ctx, real.keys, real.finish
	default:
		t.Fatalf("the function for %q was not called", led)
	}
	if !slices.Equal(run.keys, led) {
		t.Fatalf("the function was given %q, want %q", run.keys, led)
	}
	m.runs = append(m.runs, run)
}

func (m *manyModel) leave(t *rapid.T) {
	var can []*manyCall
	for _, c := range m.calls {
		if len(c.flights) > 0 && c.leave != nil {
			can = append(can, c)
		}
	}
	if len(can) == 0 {
		t.Skip()
	}
	c := rapid.SampledFrom(can).Draw(t, "leaver")
	c.leave()
	c.wantErr = context.Canceled
	for key, f := range c.flights {
		role := coalesce.LocalFollower
		if f.run.owner == c {
			role = coalesce.Leader
		}
		c.want[key] = coalesce.Result[string]{Role: role, Err: context.Canceled}
		f.waiting = slices.DeleteFunc(f.waiting, func(w *manyCall) bool { return w == c })
		m.stats.Waiting--
		if len(f.waiting) == 0 && m.current[key] == f {
			delete(m.current, key)
		}
	}
	clear(c.flights)
}

var errOfAll, errOfOne = errors.New("every key's"), errors.New("one key's")

func (m *manyModel) end(t *rapid.T) {
	if len(m.runs) == 0 {
		t.Skip()
	}
	i := rapid.IntRange(0, len(m.runs)-1).Draw(t, "run")
	r := m.runs[i]
	m.runs = slices.Delete(m.runs, i, i+1)
	how := rapid.SampledFrom([]string{"values", "values", "error", "panic", "one fails", "one is missing", "one is abandoned"}).Draw(t, "how")
	odd := rapid.SampledFrom(r.flights).Draw(t, "the odd one")
	if how == "panic" && m.throughChannel(r) {
		how = "values" // a panic would end the program
	}
	if how == "one is abandoned" && (len(odd.waiting) > 2 || r.ctx.Err() != nil) {
		how = "values" // several would race for the next flight
	}
	outcome := func(f *manyFlight) coalesce.Result[string] {
		switch {
		case how == "error":
			return coalesce.Result[string]{Err: errOfAll}
		case how == "one fails" && f == odd:
			return coalesce.Result[string]{Err: errOfOne}
		case how == "one is missing" && f == odd:
			return coalesce.Result[string]{Err: coalesce.ErrNoResult}
		case how == "one is abandoned" && f == odd:
			return coalesce.Result[string]{Err: context.Canceled}
		}
		return coalesce.Result[string]{Val: "value of " + f.key}
	}
	r.finish <- func() (map[string]string, error) {
		vals, failed := map[string]string{}, coalesce.BatchError{}
		for _, f := range r.flights {
			if o := outcome(f); o.Err == nil {
				vals[f.key] = o.Val
			} else if o.Err != coalesce.ErrNoResult {
				failed[f.key] = o.Err
			}
		}
		switch {
		case how == "panic":
			panic(how)
		case how == "error":
			return vals, errOfAll
		case len(failed) > 0:
			return vals, failed
		}
		return vals, nil
	}
	synctest.Wait()
	for _, f := range r.flights {
		m.ended(t, f, how == "panic", outcome(f))
	}
}

// ended gives everybody who waits for f what it came to.
func (m *manyModel) ended(t *rapid.T, f *manyFlight, panicked bool, o coalesce.Result[string]) {
	if m.current[f.key] == f {
		delete(m.current, f.key)
	}
	m.stats.ActiveFlights--
	if panicked || o.Err != nil {
		m.stats.Errors++
	}
	// Any of those who join anew may be the first, and leads: its function has been called.
	slices.SortStableFunc(f.waiting, func(x, y *manyCall) int { return len(y.started) - len(x.started) })
	for _, c := range f.waiting {
		m.stats.Waiting--
		delete(c.flights, f.key)
		o.Role = coalesce.LocalFollower
		if f.run.owner == c {
			o.Role = coalesce.Leader
		} else if o.Err == context.Canceled {
			m.join(t, c, []string{f.key})
			continue
		}
		if panicked {
			c.panics = c.panics || c.single || f.run.owner == c
			o = coalesce.Result[string]{Role: o.Role, Err: errPanic}
		}
		c.want[f.key] = o
	}
}

// errPanic stands for a *coalesce.PanicError.
var errPanic = errors.New("a panic")

// throughChannel says whether a caller through a channel has a part in the run. To be
// simple: whether anybody has who can leave.
func (m *manyModel) throughChannel(r *manyRun) bool { return r.owner.leave != nil }

func (m *manyModel) forget(t *rapid.T) {
	key := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "key")
	m.group.Forget(key)
	delete(m.current, key)
}

func (m *manyModel) check(t *rapid.T) {
	synctest.Wait()
	for i, c := range m.calls {
		name := fmt.Sprintf("call #%d", i+1)
		select {
		case <-c.returned:
			if len(c.flights) > 0 {
				t.Fatalf("%s has returned, and waits for %q", name, slices.Sorted(maps.Keys(c.flights)))
			}
			if c.panicked != (c.panics && c.wantErr == nil) {
				t.Fatalf("%s panicked: %v, want %v", name, c.panicked, c.panics)
			}
			for key, r := range c.got {
				if _, ok := r.Err.(*coalesce.PanicError); ok {
					r.Err = errPanic
					c.got[key] = r
				}
			}
			if !c.panicked && (!maps.Equal(c.got, c.want) || c.gotErr != c.wantErr) {
				t.Fatalf("%s got %v, %v, want %v, %v", name, c.got, c.gotErr, c.want, c.wantErr)
			}
		default:
			if len(c.flights) == 0 {
				t.Fatalf("%s has not returned, though all its keys are there: %v", name, c.want)
			}
		}
		if len(c.started) > 0 {
			t.Fatalf("the function of %s was called though others' were running", name)
		}
	}
	for _, r := range m.runs {
		if ended := r.ctx.Err() != nil; ended != (r.unwaited() && r.owner.leave != nil) {
			t.Fatalf("the context of the function for %q has ended: %v", r.keys, ended)
		}
	}
	if got := m.group.Stats(); got != m.stats {
		t.Fatalf("got %+v, want %+v", got, m.stats)
	}
}

func (m *manyModel) drain() {
	for _, c := range m.calls {
		if c.leave != nil {
			c.leave()
		}
	}
	for range 100 { // abandoned calls may start functions anew
		for _, r := range m.runs {
			select {
			case r.finish <- nil:
			default:
			}
		}
		synctest.Wait()
	}
	for _, c := range m.calls {
		close(c.started)
		for r := range c.started {
			r.finish <- nil
		}
	}
	synctest.Wait()
}
