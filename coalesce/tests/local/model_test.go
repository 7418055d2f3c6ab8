package local_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// TestGroupBehavesAsItsModel drives a Group with calls, leaves, ends and
// forgets in random order and compares it after each with a model that does
// one thing at a time: who has returned with what, which functions run, whose
// context has ended, and the counts.
func TestGroupBehavesAsItsModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Not a *testing.T itself: rapid would ask it for its Deadline,
		// which a bubble has not.
		rapid.Check(struct{ rapid.TB }{t}, func(t *rapid.T) {
			m := &model{current: map[string]*modelFlight{}}
			defer m.drain()
			t.Repeat(map[string]func(*rapid.T){
				"":          m.check,
				"call":      m.call,
				"leave":     m.leave,
				"end":       m.end,
				"forget":    m.forget,
				"forgetAll": m.forgetAll,
				"reset":     m.reset,
			})
		})
	})
}

type model struct {
	group   local.Group[string, string]
	current map[string]*modelFlight // what a call for the key joins
	running []*modelFlight
	calls   []*modelCall
	stats   local.Stats
}

type modelFlight struct {
	key       string
	leader    *modelCall
	waiting   []*modelCall
	cancelled bool
}

type modelCall struct {
	name   string
	flight *modelFlight
	role   coalesce.Role
	viaCh  bool               // DoChan
	leave  context.CancelFunc // nil: cannot
	got    <-chan outcome
	want   *outcome // nil: it waits
	done   bool     // got has delivered

	// Set by its function, if that is called.
	started bool
	ctx     context.Context
	finish  chan func() (string, error)
}

func (c *modelCall) fn(ctx context.Context) (string, error) {
	c.started = true
	c.ctx = ctx
	if end := <-c.finish; end != nil {
		return end()
	}
	return "", nil // drained
}

func (m *model) call(t *rapid.T) {
	key := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
	kind := rapid.SampledFrom([]string{"Do", "Do that cannot leave", "DoChan"}).Draw(t, "kind")
	c := &modelCall{
		name:   fmt.Sprintf("%s %q #%d", kind, key, len(m.calls)+1),
		viaCh:  kind == "DoChan",
		finish: make(chan func() (string, error), 1),
	}
	ctx := context.Background()
	if kind != "Do that cannot leave" {
		ctx, c.leave = context.WithCancel(ctx)
	}
	if c.viaCh {
		got := make(chan outcome, 1)
		ch := m.group.DoChan(ctx, key, c.fn)
		go func() {
			r := <-ch
			got <- outcome{val: r.Val, role: r.Role, err: r.Err}
		}()
		c.got = got
	} else {
		c.got = do(&m.group, ctx, key, c.fn)
	}

	m.calls = append(m.calls, c)
	m.stats.Requests++
	m.stats.Waiting++
	c.flight, c.role = m.current[key], coalesce.LocalFollower
	if c.flight == nil {
		c.flight, c.role = &modelFlight{key: key, leader: c}, coalesce.Leader
		m.current[key] = c.flight
		m.running = append(m.running, c.flight)
		m.stats.Leaders++
		m.stats.ActiveFlights++
	} else {
		m.stats.Followers++
	}
	c.flight.waiting = append(c.flight.waiting, c)
}

func (m *model) leave(t *rapid.T) {
	var can []*modelCall
	for _, c := range m.calls {
		if c.want == nil && c.leave != nil {
			can = append(can, c)
		}
	}
	if len(can) == 0 {
		t.Skip("nobody can leave")
	}
	c := can[rapid.IntRange(0, len(can)-1).Draw(t, "caller")]
	c.leave()

	f := c.flight
	c.want = &outcome{role: c.role, err: context.Canceled}
	f.waiting = slices.DeleteFunc(f.waiting, func(other *modelCall) bool { return other == c })
	m.stats.Waiting--
	if len(f.waiting) == 0 {
		f.cancelled = true
		m.removeFromCurrent(f)
	}
}

func (m *model) end(t *rapid.T) {
	if len(m.running) == 0 {
		t.Skip("nothing runs")
	}
	f := m.running[rapid.IntRange(0, len(m.running)-1).Draw(t, "flight")]
	ways := []string{"value", "error", "Goexit"}
	if !slices.ContainsFunc(f.waiting, func(c *modelCall) bool { return c.viaCh }) {
		ways = append(ways, "panic") // it would end the program
	}
	how := rapid.SampledFrom(ways).Draw(t, "how")
	val := f.leader.name
	f.leader.finish <- func() (string, error) {
		switch how {
		case "error":
			return val, errQuery
		case "Goexit":
			runtime.Goexit()
		case "panic":
			panic(val)
		}
		return val, nil
	}

	for _, c := range f.waiting {
		switch {
		case how == "value":
			c.want = &outcome{val: val, role: c.role}
		case how == "error":
			c.want = &outcome{val: val, role: c.role, err: errQuery}
		case how == "panic":
			c.want = &outcome{panicked: val}
		case c.viaCh:
			c.want = &outcome{role: c.role, err: coalesce.ErrGoexit}
		default:
			c.want = &outcome{exited: true}
		}
	}
	if how != "value" {
		m.stats.Errors++
	}
	m.stats.ActiveFlights--
	m.stats.Waiting -= int64(len(f.waiting))
	f.waiting = nil
	m.running = slices.DeleteFunc(m.running, func(other *modelFlight) bool { return other == f })
	m.removeFromCurrent(f)
}

func (m *model) forget(t *rapid.T) {
	key := rapid.SampledFrom([]string{"a", "b", "never called"}).Draw(t, "key")
	m.group.Forget(key)
	delete(m.current, key)
}

func (m *model) forgetAll(*rapid.T) {
	m.group.ForgetAll()
	clear(m.current)
}

func (m *model) reset(*rapid.T) {
	m.group.ResetStats()
	m.stats.Requests, m.stats.Leaders, m.stats.Followers, m.stats.Errors = 0, 0, 0, 0
}

func (m *model) removeFromCurrent(f *modelFlight) {
	if m.current[f.key] == f {
		delete(m.current, f.key)
	}
}

func (m *model) check(t *rapid.T) {
	synctest.Wait()
	for _, c := range m.calls {
		if led := c.role == coalesce.Leader; c.started != led {
			t.Fatalf("%s: ran its function: %v, want %v", c.name, c.started, led)
		}
		if c.done {
			continue
		}
		select {
		case got := <-c.got:
			c.done = true
			if e, ok := got.panicked.(*coalesce.PanicError); ok {
				got.panicked = e.Value
			}
			if c.want == nil {
				t.Fatalf("%s ended in %+v, want it to wait", c.name, got)
			}
			if got != *c.want {
				t.Fatalf("%s ended in %+v, want %+v", c.name, got, *c.want)
			}
		default:
			if c.want != nil {
				t.Fatalf("%s still waits, want %+v", c.name, *c.want)
			}
		}
	}
	for _, f := range m.running {
		if ended := f.leader.ctx.Err() != nil; ended != f.cancelled {
			t.Fatalf("context of the flight of %s ended: %v, want %v", f.leader.name, ended, f.cancelled)
		}
	}
	if got := m.group.Stats(); got != m.stats {
		t.Fatalf("stats %+v, want %+v", got, m.stats)
	}
}

// drain lets every goroutine end, also those the model is wrong about.
func (m *model) drain() {
	for _, c := range m.calls {
		if c.leave != nil {
			c.leave()
		}
		close(c.finish)
	}
	synctest.Wait()
}
