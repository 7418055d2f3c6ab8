package coalescetest

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/fleetcall/fleetcall/coalesce"
)

// results is what a call of DoMany must return, by key.
type results map[string]coalesce.Result[string]

// manyEnding is everything that a call of DoMany can end in.
type manyEnding struct {
	results  results
	err      error
	panicked any
	exited   bool
}

// many is a call of DoMany.
type many struct {
	x      *exercise
	name   string
	group  int
	keys   int                // that it waits for, as far as the test has seen
	leave  context.CancelFunc // nil: it cannot
	done   chan struct{}
	ending manyEnding // written before done is closed
}

// callMany calls DoMany in a goroutine of its own.
func (x *exercise) callMany(name string, group int, keys []string, fn func(context.Context, []string) (map[string]string, error)) *many {
	ctx, leave := x.context()
	m := x.callManyWith(ctx, name, group, keys, fn)
	m.leave = leave
	return m
}

func (x *exercise) callManyWith(ctx context.Context, name string, group int, keys []string, fn func(context.Context, []string) (map[string]string, error)) *many {
	distinct := len(slices.Compact(slices.Sorted(slices.Values(keys))))
	m := &many{x: x, name: name, group: group, keys: distinct, done: make(chan struct{}), ending: manyEnding{exited: true}}
	x.pending[group] += distinct
	x.calls.Add(1)
	go func() {
		defer x.calls.Done()
		defer close(m.done)
		defer func() {
			if value := recover(); value != nil {
				m.ending = manyEnding{panicked: value}
			}
		}()
		got, err := x.groups[group].DoMany(ctx, keys, fn)
		m.ending = manyEnding{results: got, err: err}
	}()
	return m
}

// followMany calls DoMany with a function that must not run.
func (x *exercise) followMany(name string, group int, keys ...string) *many {
	return x.callMany(name, group, keys, func(_ context.Context, keys []string) (map[string]string, error) {
		x.report("the function of %s ran for %q, though others' were running for them", name, keys)
		return nil, errOver
	})
}

// ends waits for the end of the call.
func (m *many) ends() manyEnding {
	m.x.Helper()
	select {
	case <-m.done:
	case <-timeUp():
		m.x.Fatalf("the call of %s has not returned", m.name)
	}
	m.x.pending[m.group] -= m.keys
	m.keys = 0
	return m.ending
}

// gets is for a call that must end with these results. Errors are compared as they are.
func (m *many) gets(want results) {
	m.x.Helper()
	m.ended(want, nil)
}

func (m *many) ended(want results, err error) {
	m.x.Helper()
	got := m.ends()
	if got.panicked != nil || got.exited || got.err != err {
		m.x.Errorf("%s %s, want the error %v", m.name, got, err)
		return
	}
	if len(got.results) != len(want) {
		m.x.Errorf("%s got results of %d keys, want %d", m.name, len(got.results), len(want))
	}
	for key, w := range want {
		if r, ok := got.results[key]; !ok || r != w {
			m.x.Errorf("%s got %s for key %.50q, want %s", m.name, resultText(r), key, resultText(w))
		}
	}
}

func (e manyEnding) String() string {
	if e.panicked != nil || e.exited {
		return ending{panicked: e.panicked, exited: e.exited}.String()
	}
	return fmt.Sprintf("got results of %d keys and the error %v", len(e.results), e.err)
}

func resultText(r coalesce.Result[string]) string {
	return fmt.Sprintf("%.50q, %v as %s", r.Val, r.Err, r.Role)
}

// led, followed and failed are what a key has.
func led(val string) coalesce.Result[string] {
	return coalesce.Result[string]{Val: val, Role: coalesce.Leader}
}

func followed(val string) coalesce.Result[string] {
	return coalesce.Result[string]{Val: val, Role: coalesce.LocalFollower}
}

func failed(role coalesce.Role, err error) coalesce.Result[string] {
	return coalesce.Result[string]{Role: role, Err: err}
}

// manyFunction is what a caller of DoMany calls with, in the hands of the test.
type manyFunction struct {
	x     *exercise
	runs  atomic.Int32
	began chan manyRun
	end   chan func() (map[string]string, error)
}

// manyRun is one call of it.
type manyRun struct {
	ctx  context.Context
	keys []string
}

func (x *exercise) manyFunction() *manyFunction {
	return &manyFunction{x: x, began: make(chan manyRun, 1000), end: make(chan func() (map[string]string, error), 10)}
}

func (f *manyFunction) run(ctx context.Context, keys []string) (map[string]string, error) {
	f.runs.Add(1)
	f.began <- manyRun{ctx, slices.Clone(keys)}
	select {
	case end := <-f.end:
		return end()
	case <-f.x.over:
		return nil, errOver
	}
}

// begins waits until the function has been called, with these keys in this order.
func (f *manyFunction) begins(keys ...string) context.Context {
	f.x.Helper()
	select {
	case run := <-f.began:
		if !slices.Equal(run.keys, keys) {
			f.x.Errorf("a batch's function was given the keys %.50q, want %.50q", run.keys, keys)
		}
		return run.ctx
	case <-timeUp():
		f.x.Fatal("a batch's function has not been called, though it should lead")
		return nil
	}
}

func (f *manyFunction) returns(vals map[string]string, err error) {
	f.end <- func() (map[string]string, error) { return vals, err }
}

func (f *manyFunction) ran(times int32) {
	f.x.Helper()
	if n := f.runs.Load(); n != times {
		f.x.Errorf("a batch's function ran %d times instead of %d", n, times)
	}
}

// leadMany has a caller lead new flights of all these keys, whose function runs.
func (x *exercise) leadMany(name string, group int, keys ...string) (*many, *manyFunction, leader) {
	x.Helper()
	f := x.manyFunction()
	m := x.callMany(name, group, keys, f.run)
	return m, f, leader{caller: &caller{x: x}, flight: f.begins(keys...)}
}
