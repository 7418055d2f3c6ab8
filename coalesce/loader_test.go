package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// loaded is a Loader's function that notes what it is given.
type loaded struct {
	mu    sync.Mutex
	calls [][]string
	err   error
}

func (f *loaded) read(_ context.Context, keys []string) (map[string]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, slices.Clone(keys))
	vals := map[string]string{}
	for _, key := range keys {
		if key != "unknown" {
			vals[key] = "value of " + key
		}
	}
	return vals, f.err
}

func newLoader(t *testing.T, ctx context.Context, fn func(context.Context, []string) (map[string]string, error), opts ...coalesce.LoaderOption) *coalesce.Loader[string] {
	t.Helper()
	l, err := coalesce.NewLoader(ctx, local.Tier(new(local.Group[string, string])), fn, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLoaderCollectsTheCallsOfAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f loaded
		l := newLoader(t, t.Context(), f.read, coalesce.CollectFor(5*time.Millisecond))
		began := time.Now()
		got := make(chan string, 4)
		for i, key := range []string{"a", "b", "a", "unknown"} {
			go func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				val, role, err := l.Do(t.Context(), key)
				got <- fmt.Sprintf("%s as %s, %v", val, role, err)
			}()
		}
		var all []string
		for range 4 {
			all = append(all, <-got)
		}
		slices.Sort(all)
		want := []string{" as leader, " + coalesce.ErrNoResult.Error(), "value of a as leader, <nil>", "value of a as leader, <nil>", "value of b as leader, <nil>"}
		if !slices.Equal(all, want) || !reflect.DeepEqual(f.calls, [][]string{{"a", "b", "unknown"}}) || time.Since(began) != 5*time.Millisecond {
			t.Errorf("after %v: %q, of calls for %q", time.Since(began), all, f.calls)
		}
		if val, _, err := l.Do(t.Context(), "a"); val != "value of a" || err != nil || len(f.calls) != 2 {
			t.Errorf("it is no cache: %q, %v, %q", val, err, f.calls)
		}
	})
}

func TestLoaderCallsWhenItIsToldOrFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f loaded
		l := newLoader(t, t.Context(), f.read, coalesce.CollectUntilFlush(), coalesce.MaxBatch(3))
		l.Flush() // nobody has asked
		a, b := l.Ask("a"), l.Ask("b")
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(f.calls) != 0 {
			t.Fatalf("it has called for %q by itself", f.calls)
		}
		l.Flush()
		for range 2 { // any number of times
			if val, _, err := a(t.Context()); val != "value of a" || err != nil {
				t.Errorf("got %q, %v", val, err)
			}
		}
		if val, _, err := b(t.Context()); val != "value of b" || err != nil {
			t.Errorf("got %q, %v", val, err)
		}
		var last func(context.Context) (string, coalesce.Role, error)
		for i := range 7 {
			last = l.Ask(fmt.Sprint(i))
		}
		synctest.Wait()
		l.Flush()
		if val, _, err := last(t.Context()); val != "value of 6" || err != nil {
			t.Errorf("got %q, %v", val, err)
		}
		slices.SortFunc(f.calls, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
		if want := [][]string{{"0", "1", "2"}, {"3", "4", "5"}, {"6"}, {"a", "b"}}; !reflect.DeepEqual(f.calls, want) {
			t.Errorf("calls for %q", f.calls)
		}
	})
}

type request struct{}

// Two requests share a flight through the Group, and neither's function sees the other's
// context.
func TestLoadersOfTwoRequestsShareFlightsAndNoContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := local.Tier(new(local.Group[string, string]))
		release := make(chan struct{})
		var seen []string
		fn := func(ctx context.Context, keys []string) (map[string]string, error) {
			seen = append(seen, fmt.Sprint(ctx.Value(request{}), keys))
			<-release
			vals := map[string]string{}
			for _, key := range keys {
				vals[key] = fmt.Sprint(ctx.Value(request{}))
			}
			return vals, nil
		}
		var waits []func(context.Context) (string, coalesce.Role, error)
		for name, keys := range map[string][]string{"one": {"a", "b"}, "two": {"b", "c"}} {
			l, err := coalesce.NewLoader(context.WithValue(t.Context(), request{}, name), group, fn)
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range keys {
				waits = append(waits, l.Ask(key))
			}
			time.Sleep(coalesce.DefaultMoment)
			synctest.Wait()
		}
		close(release)
		leaders := 0
		for _, wait := range waits {
			_, role, err := wait(t.Context())
			if err != nil {
				t.Error(err)
			}
			if role == coalesce.Leader {
				leaders++
			}
		}
		if leaders != 3 || len(seen) != 2 {
			t.Errorf("%d keys were led, by functions with %q", leaders, seen)
		}
	})
}

func TestLoaderOfARequestThatEndsLetsItsCallersGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var f loaded
		l := newLoader(t, ctx, f.read, coalesce.CollectUntilFlush())
		wait := l.Ask("a")
		gone, leave := context.WithCancel(t.Context())
		leave()
		if _, role, err := wait(gone); err != context.Canceled || role != 0 {
			t.Errorf("a caller that has left got %v as %s", err, role)
		}
		cancel()
		if _, role, err := wait(t.Context()); err != context.Canceled || role != 0 {
			t.Errorf("a caller of a request that has ended got %v as %s", err, role)
		}
		l.Flush()
		synctest.Wait()
		if _, _, err := wait(t.Context()); err != context.Canceled || len(f.calls) != 0 {
			t.Errorf("%v, and calls for %q", err, f.calls)
		}
	})
}

func TestLoaderHandsOnPanicsAndExits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoader(t, t.Context(), func(context.Context, []string) (map[string]string, error) { panic("broken") })
		for _, wait := range []func(context.Context) (string, coalesce.Role, error){l.Ask("a"), l.Ask("b")} {
			func() {
				defer func() {
					if e, ok := recover().(*coalesce.PanicError); !ok || e.Value != "broken" {
						t.Errorf("recovered %v", e)
					}
				}()
				_, _, _ = wait(t.Context())
			}()
		}
		l = newLoader(t, t.Context(), func(context.Context, []string) (map[string]string, error) { runtime.Goexit(); return nil, nil })
		if _, _, err := l.Do(t.Context(), "a"); err != coalesce.ErrGoexit {
			t.Errorf("got %v", err)
		}
		errQuery := errors.New("the query failed")
		l = newLoader(t, t.Context(), (&loaded{err: coalesce.BatchError{"a": errQuery}}).read)
		b := l.Ask("b")
		if _, _, err := l.Do(t.Context(), "a"); err != errQuery {
			t.Errorf("got %v", err)
		}
		if val, _, err := b(t.Context()); val != "value of b" || err != nil {
			t.Errorf("got %q, %v", val, err)
		}
	})
}

func TestLoaderRefusesWhatMakesNoSense(t *testing.T) {
	var f loaded
	for want, opt := range map[string]coalesce.LoaderOption{"waits for nobody": coalesce.CollectFor(0), "no room": coalesce.MaxBatch(0), "is nil": nil} {
		if _, err := coalesce.NewLoader(t.Context(), coalesce.Off[string]{}, f.read, opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := coalesce.NewLoader[string](t.Context(), nil, f.read); err == nil {
		t.Error("a Loader without a Group")
	}
}

// hooked is a Group with a hook that panics.
type hooked struct{ coalesce.Group[string] }

func (hooked) DoMany(context.Context, []string, func(context.Context, []string) (map[string]string, error)) (map[string]coalesce.Result[string], error) {
	panic("hook")
}

// TestLoaderHandsOnAPanicBesideTheFunction has it reach the callers, who can recover it: on the
// Loader's own goroutine it would end the program.
func TestLoaderHandsOnAPanicBesideTheFunction(t *testing.T) {
	l, err := coalesce.NewLoader(t.Context(), coalesce.Group[string](hooked{}), new(loaded).read)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if panicked, ok := recover().(*coalesce.PanicError); !ok || panicked.Value != "hook" {
			t.Errorf("panic %v", panicked)
		}
	}()
	_, _, _ = l.Do(t.Context(), "a")
	t.Error("no panic")
}
