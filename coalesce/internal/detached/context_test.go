package detached_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
)

type key struct{}

func TestHasTheFirstOnesValuesAndNotItsEnd(t *testing.T) {
	cause := context.Canceled
	first, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "value"))
	c := &detached.Context{First: first}
	cancel(cause)
	if c.Value(key{}) != "value" {
		t.Errorf("the value is %v", c.Value(key{}))
	}
	if c.Err() != nil || context.Cause(c) != nil {
		t.Errorf("it ended with the first one: %v, %v", c.Err(), context.Cause(c))
	}
}

func TestEndsOnceForAllWhoAskAndWhoAskedBefore(t *testing.T) {
	c := &detached.Context{First: t.Context()}
	before := c.Done()
	c.End(context.DeadlineExceeded)
	c.End(context.Canceled)
	<-before
	<-c.Done()
	if c.Err() != context.DeadlineExceeded {
		t.Errorf("it ended with %v", c.Err())
	}
}

func TestDerivedContextsEndWithItAndTakeNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &detached.Context{First: context.Background()}
		derived, cancel := context.WithCancel(c)
		defer cancel()
		left, leave := context.WithTimeout(c, time.Hour)
		leave() // does not wait for c's end
		synctest.Wait()
		// A goroutine that waited for c would be left here, and fail the test's end.
		var called int
		stop := c.AfterFunc(func() { t.Error("it was called though it was stopped") })
		c.AfterFunc(func() { called++ })
		if !stop() || stop() {
			t.Error("stop says whether it was in time, once")
		}
		c.End(context.Canceled)
		synctest.Wait()
		if derived.Err() == nil || left.Err() == nil || called != 1 {
			t.Errorf("after the end: derived %v, left %v, called %d times", derived.Err(), left.Err(), called)
		}
		late := make(chan struct{})
		if stop := c.AfterFunc(func() { close(late) }); stop() {
			t.Error("stop says that it was in time after the end")
		}
		<-late
	})
}

func TestDeadlineIsWhatItIsSetTo(t *testing.T) {
	if _, ok := (&detached.Context{First: t.Context()}).Deadline(); ok {
		t.Error("it has a deadline of its own accord")
	}
	until := time.Now().Add(time.Minute)
	if got, ok := (&detached.Timed{Context: detached.Context{First: t.Context()}, Until: until}).Deadline(); !ok || !got.Equal(until) {
		t.Errorf("its deadline is %v, %v", got, ok)
	}
}
