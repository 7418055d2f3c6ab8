package local_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// doAsync is one caller of work that is done elsewhere.
func doAsync(g *local.Group[string, int], ctx context.Context, key string, start func(ctx context.Context, end func(int, error, bool) int)) (int, error) {
	joined := g.Join(key)
	if joined.Leads() {
		start(joined.Start(ctx), func(val int, err error, returned bool) int {
			ended := joined.End(val, err, returned)
			ended.Tell()
			return ended.Callers
		})
	}
	val, err := joined.Wait(ctx)
	if val == nil {
		return 0, err
	}
	return *val, err
}

func TestAFlightThatIsForgottenLeavesThatOfItsKeySince(t *testing.T) {
	var g local.Group[string, int]
	first := g.Join("key")
	first.Start(t.Context())
	first.Forget()
	second := g.Join("key")
	if !second.Leads() {
		t.Fatal("a forgotten flight is joined")
	}
	second.Start(t.Context())
	first.Forget() // again
	late := g.Join("key")
	if late.Leads() {
		t.Error("the flight since is forgotten, too")
	}
	first.End(1, nil, true).Tell()
	second.End(2, nil, true).Tell()
	first.Forget() // when it has ended
	for joined, want := range map[*local.Joined[string, int]]int{&first: 1, &second: 2, &late: 2} {
		if val, err := joined.Wait(t.Context()); val == nil || *val != want || err != nil {
			t.Errorf("%v, %v, not %d", val, err, want)
		}
	}
}

// asyncCallers has callers of one flight, whose work is done by begin. Each
// caller notes how it came back.
func asyncCallers(t *testing.T, n int, begin func(ctx context.Context, end func(int, error, bool) int)) (values []int, errs []error, panics []any, exits int) {
	var g local.Group[string, int]
	var wg sync.WaitGroup
	var mu sync.Mutex
	began := make(chan struct{})
	for range n {
		wg.Add(1)
		go func() {
			returned := false
			defer wg.Done()
			defer func() {
				value := recover()
				mu.Lock()
				defer mu.Unlock()
				switch {
				case value != nil:
					panics = append(panics, value)
				case !returned:
					exits++
				}
			}()
			val, err := doAsync(&g, t.Context(), "key", func(ctx context.Context, end func(int, error, bool) int) {
				go func() {
					<-began
					begin(ctx, end)
				}()
			})
			returned = true
			mu.Lock()
			defer mu.Unlock()
			values, errs = append(values, val), append(errs, err)
		}()
	}
	for g.Stats().Waiting != int64(n) {
		runtime.Gosched()
	}
	close(began)
	wg.Wait()
	if st := g.Stats(); st.ActiveFlights != 0 || st.Leaders != 1 {
		t.Errorf("%+v", st)
	}
	return values, errs, panics, exits
}

func TestAsyncWorkEndsItsFlightOnce(t *testing.T) {
	later := errors.New("a later end")
	values, errs, panics, exits := asyncCallers(t, 3, func(ctx context.Context, end func(int, error, bool) int) {
		end(42, nil, true)
		if ctx.Err() == nil {
			t.Error("the flight's context outlives it")
		}
		end(43, later, true)
	})
	if len(values) != 3 || len(panics)+exits > 0 {
		t.Fatalf("%v, %v, %v, %d", values, errs, panics, exits)
	}
	for i := range values {
		if values[i] != 42 || errs[i] != nil {
			t.Errorf("a caller got %d, %v", values[i], errs[i])
		}
	}
}

func TestAsyncWorkThatPanicsOrExitsDoesSoInEveryCaller(t *testing.T) {
	panicked := &coalesce.PanicError{Value: "boom"}
	_, _, panics, _ := asyncCallers(t, 3, func(_ context.Context, end func(int, error, bool) int) { end(0, panicked, false) })
	if len(panics) != 3 || panics[0] != panicked {
		t.Errorf("the callers' panics are %v", panics)
	}
	if _, _, _, exits := asyncCallers(t, 3, func(_ context.Context, end func(int, error, bool) int) { end(0, coalesce.ErrGoexit, false) }); exits != 3 {
		t.Errorf("%d of 3 callers exited", exits)
	}
	// A function may return what another one's panic became.
	for _, err := range []error{panicked, coalesce.ErrGoexit} {
		_, errs, panics, exits := asyncCallers(t, 3, func(_ context.Context, end func(int, error, bool) int) { end(0, err, true) })
		if len(errs) != 3 || errs[0] != err || len(panics)+exits > 0 {
			t.Errorf("an error that was returned: %v, %v, %d", errs, panics, exits)
		}
	}
}

func TestAsyncFlightIsLeftAsAnyOther(t *testing.T) {
	var g local.Group[string, int]
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	ended := make(chan func(int, error, bool) int, 1)
	gone := make(chan struct{})
	_, err := doAsync(&g, ctx, "key", func(ctx context.Context, end func(int, error, bool) int) {
		context.AfterFunc(ctx, func() { close(gone) })
		ended <- end
	})
	if err != context.DeadlineExceeded {
		t.Errorf("the caller got %v", err)
	}
	<-gone // the last caller's leaving ends the context
	if val, role, err := g.Do(t.Context(), "key", answer); val != 42 || role != coalesce.Leader || err != nil {
		t.Errorf("the next caller got %d, %v, %v", val, role, err)
	}
	(<-ended)(1, nil, true)
	if st := g.Stats(); st.ActiveFlights != 0 {
		t.Errorf("%+v", st)
	}
}
