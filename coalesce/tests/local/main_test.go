package local_test

import (
	"context"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type function = func(context.Context) (string, error)

// outcome is everything a call can end in.
type outcome struct {
	val      string
	role     coalesce.Role
	err      error
	panicked any
	exited   bool // its goroutine, by runtime.Goexit
}

// do calls g.Do in a goroutine of its own.
func do(g *local.Group[string, string], ctx context.Context, key string, fn function) <-chan outcome {
	ch := make(chan outcome, 1)
	go func() {
		o := outcome{exited: true}
		defer func() {
			if o.panicked = recover(); o.panicked != nil {
				o.exited = false
			}
			ch <- o
		}()
		o.val, o.role, o.err = g.Do(ctx, key, fn)
		o.exited = false
	}()
	return ch
}

// ended returns the outcome of a call that must have ended once every
// goroutine of the bubble is blocked.
func ended(t *testing.T, ch <-chan outcome) outcome {
	t.Helper()
	synctest.Wait()
	select {
	case o := <-ch:
		return o
	default:
		t.Fatal("the call still waits")
		panic("unreachable")
	}
}

func mustEnd(t *testing.T, ch <-chan outcome, want outcome) {
	t.Helper()
	if got := ended(t, ch); got != want {
		t.Fatalf("the call ended in %+v, want %+v", got, want)
	}
}

func mustWait(t *testing.T, ch <-chan outcome) {
	t.Helper()
	synctest.Wait()
	select {
	case o := <-ch:
		t.Fatalf("the call ended in %+v, want it to wait", o)
	default:
	}
}

// script is a flight's function under the control of a test.
type script struct {
	runs int             // how often it was called
	ctx  context.Context // that it was called with
	end  chan func() (string, error)
}

func newScript() *script { return &script{end: make(chan func() (string, error))} }

// fn ignores its context: it ends when told to.
func (s *script) fn(ctx context.Context) (string, error) {
	s.runs++
	s.ctx = ctx
	return (<-s.end)()
}

func (s *script) ends(val string, err error) {
	s.end <- func() (string, error) { return val, err }
}

func (s *script) mustHaveRun(t *testing.T, want int) {
	t.Helper()
	synctest.Wait()
	if s.runs != want {
		t.Fatalf("the function ran %d times, want %d", s.runs, want)
	}
}

func mustNotRun(t *testing.T) function {
	return func(context.Context) (string, error) {
		t.Error("ran the function of a caller that is no leader")
		return "", nil
	}
}

// cancellable returns a context that a caller can leave by, released at the
// end of the test.
func cancellable(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return ctx
}

// inBubble runs test once with a first caller that cannot leave, which runs
// its function on its own stack, and once with one that can.
func inBubble(t *testing.T, test func(t *testing.T, ctx context.Context)) {
	t.Run("first caller cannot leave", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, context.Background()) })
	})
	t.Run("first caller can leave", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, cancellable(t)) })
	})
}
