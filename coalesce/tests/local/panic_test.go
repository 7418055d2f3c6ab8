package local_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// explode is looked for by name in stacks.
//
//go:noinline
func explode(value any) (string, error) { panic(value) }

type diskError struct{ sector int }

func (diskError) Error() string { return "bad sector" }

func mustPanic(t *testing.T, ch <-chan outcome) *coalesce.PanicError {
	t.Helper()
	o := ended(t, ch)
	e, ok := o.panicked.(*coalesce.PanicError)
	if !ok {
		t.Fatalf("the call ended in %+v, want a panic with a *coalesce.PanicError", o)
	}
	return e
}

func TestPanicReachesEveryCallerWithItsValueAndOriginalStack(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		s := newScript()
		calls := []<-chan outcome{do(&g, ctx, "key", s.fn)}
		s.mustHaveRun(t, 1)
		for range 3 {
			calls = append(calls, do(&g, ctx, "key", mustNotRun(t)), do(&g, cancellable(t), "key", mustNotRun(t)))
		}
		synctest.Wait()
		s.end <- func() (string, error) { return explode("boom") }
		for i, call := range calls {
			e := mustPanic(t, call)
			if e.Value != "boom" {
				t.Errorf("caller %d: value %v", i, e.Value)
			}
			if !bytes.Contains(e.Stack, []byte("local_test.explode")) {
				t.Errorf("caller %d: the stack does not show the function that panicked:\n%s", i, e.Stack)
			}
			if !strings.Contains(e.Error(), "boom") || !strings.Contains(e.Error(), "local_test.explode") {
				t.Errorf("caller %d: the message lacks the value or the stack: %s", i, e)
			}
		}

		val, role, err := g.Do(ctx, "key", func(context.Context) (string, error) { return "next", nil })
		if val != "next" || role != coalesce.Leader || err != nil {
			t.Errorf("after the panic: Do = %q, %v, %v", val, role, err)
		}
	})
}

func TestPanicWithAnErrorIsFoundByErrorsIsAndAs(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		e := mustPanic(t, do(&g, ctx, "key", func(context.Context) (string, error) {
			return explode(errors.Join(errQuery, diskError{7}))
		}))
		if !errors.Is(e, errQuery) {
			t.Error("errors.Is does not find the value")
		}
		var disk diskError
		if !errors.As(e, &disk) || disk.sector != 7 {
			t.Error("errors.As does not find the value")
		}
	})
}

func TestRuntimeErrorInTheFunctionIsAPanicLikeAnyOther(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		e := mustPanic(t, do(&g, ctx, "key", func(context.Context) (string, error) {
			var none []string
			return none[len(none)], nil
		}))
		var re runtime.Error
		if !errors.As(e, &re) {
			t.Errorf("value %v is no runtime.Error", e.Value)
		}
	})
}

func TestPanicWithNilIsNotTakenForGoexit(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		e := mustPanic(t, do(&g, ctx, "key", func(context.Context) (string, error) { return explode(nil) }))
		if _, ok := e.Value.(*runtime.PanicNilError); !ok {
			t.Errorf("value %T, want *runtime.PanicNilError", e.Value)
		}
	})
}

func TestPanicThroughNestedFlightsKeepsTheInnermostStack(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var outer, inner local.Group[string, string]
		e := mustPanic(t, do(&outer, ctx, "key", func(ctx context.Context) (string, error) {
			val, _, err := inner.Do(ctx, "key", func(context.Context) (string, error) { return explode("boom") })
			return val, err
		}))
		if e.Value != "boom" || !bytes.Contains(e.Stack, []byte("local_test.explode")) {
			t.Errorf("value %v, stack:\n%s", e.Value, e.Stack)
		}
	})
}

func TestPanicAfterTheLastCallerHasLeftIsCountedAndGoesNoFurther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		s := newScript()
		leaveAll := func(leave context.CancelFunc, gone func()) {
			s.mustHaveRun(t, 1)
			leave()
			gone()
			s.end <- func() (string, error) { return explode("boom") }
			synctest.Wait()
			s.runs = 0
		}

		ctx, leave := context.WithCancel(t.Context())
		caller := do(&g, ctx, "key", s.fn)
		leaveAll(leave, func() { mustEnd(t, caller, outcome{role: coalesce.Leader, err: context.Canceled}) })

		ctx, leave = context.WithCancel(t.Context())
		ch := g.DoChan(ctx, "key", s.fn)
		leaveAll(leave, func() {
			if r := <-ch; r.Err != context.Canceled {
				t.Errorf("DoChan: %+v", r)
			}
		})

		if st := g.Stats(); st != (local.Stats{Requests: 2, Leaders: 2, Errors: 2}) {
			t.Errorf("%+v", st)
		}
	})
}

func TestGoexitInTheFunctionExitsTheGoroutineOfEveryCaller(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		s := newScript()
		calls := []<-chan outcome{do(&g, ctx, "key", s.fn)}
		s.mustHaveRun(t, 1)
		for range 3 {
			calls = append(calls, do(&g, ctx, "key", mustNotRun(t)), do(&g, cancellable(t), "key", mustNotRun(t)))
		}
		synctest.Wait()
		s.end <- func() (string, error) { runtime.Goexit(); return "", nil }
		for _, call := range calls {
			mustEnd(t, call, outcome{exited: true})
		}

		val, role, err := g.Do(ctx, "key", func(context.Context) (string, error) { return "next", nil })
		if val != "next" || role != coalesce.Leader || err != nil {
			t.Errorf("after Goexit: Do = %q, %v, %v", val, role, err)
		}
	})
}

func TestGoexitReachesDoChanAsAnError(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		s := newScript()
		leader := g.DoChan(ctx, "key", s.fn)
		follower := g.DoChan(ctx, "key", mustNotRun(t))
		s.end <- func() (string, error) { runtime.Goexit(); return "", nil }
		if r := <-leader; r != (local.Result[string]{Err: coalesce.ErrGoexit, Role: coalesce.Leader}) {
			t.Errorf("leader: %+v", r)
		}
		if r := <-follower; r != (local.Result[string]{Err: coalesce.ErrGoexit, Role: coalesce.LocalFollower}) {
			t.Errorf("follower: %+v", r)
		}
	})
}

// crashes are programs that must not survive. Each recovers what it can.
var crashes = map[string]func(){
	"leader": func() {
		defer func() { recover() }()
		var g local.Group[string, string]
		<-g.DoChan(context.Background(), "key", func(context.Context) (string, error) { return explode("boom in DoChan") })
	},
	"follower of a Do that recovers": func() {
		var g local.Group[string, string]
		started, joined, recovered := make(chan struct{}), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(recovered)
			defer func() { recover() }()
			g.Do(context.Background(), "key", func(context.Context) (string, error) {
				close(started)
				<-joined
				return explode("boom in DoChan")
			})
		}()
		<-started
		ch := g.DoChan(context.Background(), "key", nil)
		close(joined)
		<-recovered
		<-ch
	},
}

func TestPanicInAFlightOfDoChanEndsTheProgramWithTheOriginalStack(t *testing.T) {
	const variable = "FLEETCALL_TEST_CRASH"
	if name := os.Getenv(variable); name != "" {
		crashes[name]()
		os.Stderr.WriteString("survived\n")
		os.Exit(0)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Skip(err)
	}
	for name := range crashes {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestPanicInAFlightOfDoChanEndsTheProgramWithTheOriginalStack$")
			cmd.Env = append(os.Environ(), variable+"="+name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || bytes.Contains(out, []byte("survived")) {
				t.Fatalf("the program ended with %v:\n%s", err, out)
			}
			for _, want := range []string{"panic: ", "boom in DoChan", "local_test.explode"} {
				if !bytes.Contains(out, []byte(want)) {
					t.Errorf("the message lacks %q:\n%s", want, out)
				}
			}
		})
	}
}
