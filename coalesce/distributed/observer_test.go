package distributed_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"fleetcall/coalesce"
	"fleetcall/coalesce/distributed"
)

// told notes what an observer is told, under its name.
type told struct {
	name string
	log  *toldLog
}

type toldLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *toldLog) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

type toldKey struct{}

func (o told) Called(_ context.Context, c distributed.Call) {
	o.log.add(o.name + " called " + c.Role.String())
}
func (o told) Command(c distributed.Command) { o.log.add(o.name + " " + c.Step) }
func (o told) Breaker(string, string)        {}
func (o told) Lease(l distributed.Lease) {
	if l.State == distributed.LeaseTaken {
		o.log.add(o.name + " lease taken")
	}
}

func (o told) Run(ctx context.Context, _ distributed.Run) (context.Context, func(error)) {
	o.log.add(o.name + " run")
	before, _ := ctx.Value(toldKey{}).(string)
	return context.WithValue(ctx, toldKey{}, before+o.name), func(error) { o.log.add(o.name + " ran") }
}

func TestEveryObserverIsToldInTheOrderTheyWereAdded(t *testing.T) {
	var log toldLog
	f := newFleet[string](t, 1, distributed.WithObserver(told{"a", &log}),
		distributed.WithObserver(told{"b", &log}), distributed.WithObserver(told{"c", &log}))
	value, role, err := f.groups[0].Do(t.Context(), "key", func(ctx context.Context) (string, error) {
		seen, _ := ctx.Value(toldKey{}).(string)
		return seen, nil
	})
	if value != "abc" || role != coalesce.Leader || err != nil {
		t.Errorf("Do returned %q, %v, %v: the function wants the contexts of a, b and c", value, role, err)
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	lines := slices.DeleteFunc(log.lines, func(line string) bool { return line[2:] == "finish" }) // comes when it comes
	want := []string{
		"a join", "b join", "c join",
		"a lease taken", "b lease taken", "c lease taken",
		"a run", "b run", "c run",
		"c ran", "b ran", "a ran",
		"a called leader", "b called leader", "c called leader",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("they were told %q\nwant %q", lines, want)
	}
}
