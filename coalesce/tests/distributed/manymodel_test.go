package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/fleetcall/fleetcall/coalesce"
)

// errOfModel is an error that travels.
var errOfModel = errors.New("an error of the model")

// TestOverlappingBatchesBehaveAsTheirModel has two replicas call for overlapping keys, with
// Do and DoMany, leave, and end their functions in random order. After each step it compares
// them with a model that knows only which flight each key has: who leads, what functions
// are called for, and what each caller has in the end.
func TestOverlappingBatchesBehaveAsTheirModel(t *testing.T) {
	t.Parallel()
	coalesce.RegisterError("batch-model", errOfModel)
	f := newFleet[string](t, 2)
	admin, rounds := f.client(), 0
	rapid.Check(t, func(t *rapid.T) {
		if rounds++; rounds > 25 {
			return // each takes its time
		}
		m := &batchModel{t: t, f: f, admin: admin, flights: map[string]*batchFlight{}, keys: []string{"a", "b", "c", "d", "e"}}
		for i := range m.keys {
			m.keys[i] = fmt.Sprint("model-", rounds, m.keys[i])
		}
		for range rapid.IntRange(1, 10).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"call", "call", "leave", "end"}).Draw(t, "step") {
			case "call":
				m.call()
			case "leave":
				m.leave()
			case "end":
				m.end()
			}
		}
		for len(m.running) > 0 {
			m.end()
		}
	})
}

type batchModel struct {
	t       *rapid.T
	f       *fleet[string]
	admin   *redis.Client
	keys    []string
	flights map[string]*batchFlight // by key
	running []*modelRun
	calls   []*modelCaller // that wait
}

// batchFlight is a key's flight in the fleet.
type batchFlight struct {
	run     *modelRun
	waiting [2]int // callers of each replica
	local   [2]bool
}

// modelRun is a function that runs.
type modelRun struct {
	keys   []string
	finish chan modelEnd
	ctx    context.Context
}

type modelEnd struct {
	vals map[string]string
	err  error
}

type modelCaller struct {
	replica int
	single  bool
	keys    []string
	want    map[string]coalesce.Result[string] // Val and Err once its flight has ended
	missing int
	cancel  context.CancelFunc
	got     <-chan batchResult
	began   chan *modelRun
}

func (m *batchModel) call() {
	c := &modelCaller{
		replica: rapid.IntRange(0, 1).Draw(m.t, "replica"),
		keys:    rapid.SliceOfNDistinct(rapid.SampledFrom(m.keys), 1, 4, rapid.ID).Draw(m.t, "keys"),
		want:    map[string]coalesce.Result[string]{}, began: make(chan *modelRun, 10),
	}
	if c.single = rapid.Bool().Draw(m.t, "single"); c.single {
		c.keys = c.keys[:1]
	}
	var leads []string
	joins := int64(0)
	for _, key := range c.keys {
		flight, role := m.flights[key], coalesce.Leader
		switch {
		case flight == nil:
			flight = &batchFlight{}
			m.flights[key] = flight
			leads = append(leads, key)
		case flight.local[c.replica]:
			role = coalesce.LocalFollower
		default:
			role = coalesce.RemoteFollower
		}
		if role != coalesce.LocalFollower {
			joins++
		}
		flight.local[c.replica] = true
		flight.waiting[c.replica]++
		c.want[key] = coalesce.Result[string]{Role: role}
	}
	c.missing = len(c.keys)
	joined, requests := m.f.joins.Load()+joins, m.requests(c.replica)+uint64(len(c.keys))
	m.start(c)
	if len(leads) > 0 {
		run := <-c.began
		if !slices.Equal(run.keys, leads) {
			m.t.Fatalf("a call for %q ran its function for %q, not %q", c.keys, run.keys, leads)
		}
		for _, key := range leads {
			m.flights[key].run = run
		}
		m.running = append(m.running, run)
	}
	m.eventually("it has joined", func() bool { return m.f.joins.Load() >= joined && m.requests(c.replica) >= requests })
	m.calls = append(m.calls, c)
	time.Sleep(onItsWay)
}

func (m *batchModel) requests(replica int) uint64 { return m.f.groups[replica].Stats().Local.Requests }

func (m *batchModel) start(c *modelCaller) {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	g := m.f.groups[c.replica]
	fn := func(ctx context.Context, keys []string) (map[string]string, error) {
		run := &modelRun{keys, make(chan modelEnd, 1), ctx}
		c.began <- run
		end := <-run.finish
		return end.vals, end.err
	}
	if !c.single {
		c.got = doMany(ctx, g, c.keys, fn)
		return
	}
	got := make(chan batchResult, 1)
	c.got = got
	go func() {
		key := c.keys[0]
		val, role, err := g.Do(ctx, key, func(ctx context.Context) (string, error) {
			vals, err := fn(ctx, c.keys)
			return coalesce.ResultOf(vals, err, key)
		})
		r := batchResult{results: map[string]coalesce.Result[string]{key: {Val: val, Role: role, Err: err}}}
		if err == context.Canceled {
			r.err = err
		}
		got <- r
	}()
}

// leave has a caller leave. Flights that nobody waits for any more are given up.
func (m *batchModel) leave() {
	if len(m.calls) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.calls)-1).Draw(m.t, "who leaves")
	c := m.calls[i]
	m.calls = slices.Delete(m.calls, i, i+1)
	c.cancel()
	var over []string
	for _, key := range c.keys {
		want := c.want[key]
		flight := m.flights[key]
		if want.Val != "" || want.Err != nil {
			continue // it has ended before
		}
		want.Err = context.Canceled
		c.want[key] = want
		if flight.waiting[c.replica]--; flight.waiting[c.replica] == 0 {
			flight.local[c.replica] = false
		}
		if flight.waiting == [2]int{} {
			delete(m.flights, key)
			over = append(over, key)
		}
	}
	m.returns(c, context.Canceled)
	m.releases(over)
	m.running = slices.DeleteFunc(m.running, func(run *modelRun) bool {
		if slices.ContainsFunc(run.keys, func(key string) bool { f := m.flights[key]; return f != nil && f.run == run }) {
			if run.ctx.Err() != nil {
				m.t.Fatalf("the function for %q is cancelled though somebody waits", run.keys)
			}
			return false
		}
		<-run.ctx.Done()
		run.finish <- modelEnd{}
		return true
	})
}

// end has a function return, with an outcome of its own for each key.
func (m *batchModel) end() {
	if len(m.running) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.running)-1).Draw(m.t, "which ends")
	run := m.running[i]
	m.running = slices.Delete(m.running, i, i+1)
	end := modelEnd{vals: map[string]string{}}
	failed := coalesce.BatchError{}
	for _, key := range run.keys {
		switch rapid.SampledFrom([]string{"value", "value", "missing", "error"}).Draw(m.t, "outcome") {
		case "value":
			end.vals[key] = "of " + key
		case "error":
			failed[key] = errOfModel
		}
	}
	if len(failed) > 0 {
		end.err = failed
	}
	if rapid.IntRange(0, 5).Draw(m.t, "all fail") == 0 {
		end.err = errOfModel
	}
	run.finish <- end
	var over []string
	for _, key := range run.keys {
		flight := m.flights[key]
		if flight == nil || flight.run != run {
			continue // given up
		}
		delete(m.flights, key)
		over = append(over, key)
		for _, c := range m.calls {
			want, waits := c.want[key]
			if !waits || want.Val != "" || want.Err != nil {
				continue
			}
			want.Val, want.Err = coalesce.ResultOf(end.vals, end.err, key)
			c.want[key] = want
			c.missing--
		}
	}
	m.calls = slices.DeleteFunc(m.calls, func(c *modelCaller) bool {
		if c.missing > 0 {
			return false
		}
		m.returns(c, nil)
		c.cancel()
		return true
	})
	m.releases(over)
}

// returns compares what a caller got with what the model wants.
func (m *batchModel) returns(c *modelCaller, err error) {
	got := <-c.got
	if err != nil && got.err == nil {
		for _, want := range c.want {
			if want.Err == err {
				m.t.Fatalf("who left got no error of its own: %+v", got)
			}
		}
	} else if got.err != err {
		m.t.Fatalf("the call's error is %v, not %v", got.err, err)
	}
	for _, key := range c.keys {
		if r, want := got.results[key], c.want[key]; r.Val != want.Val || r.Role != want.Role || !errors.Is(r.Err, want.Err) || (want.Err == nil) != (r.Err == nil) {
			m.t.Fatalf("replica %d, %s of %q: %+v, want %+v", c.replica, key, c.keys, r, want)
		}
	}
	if len(c.began) > 0 {
		m.t.Fatalf("a function was called again, for %q", (<-c.began).keys)
	}
}

// releases waits until Redis has no lease of flights that are over: who comes before that
// may join the flight.
func (m *batchModel) releases(over []string) {
	for _, key := range over {
		m.eventually("the lease of "+key+" is released", func() bool {
			return m.admin.Exists(context.Background(), "fleetcall:test:{"+key+"}:lease").Val() == 0
		})
	}
}

func (m *batchModel) eventually(what string, ok func() bool) {
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("did not happen within %v: %s", patience, what)
		}
	}
}
