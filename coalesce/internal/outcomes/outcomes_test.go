package outcomes_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/outcomes"
)

var errSold = errors.New("sold")

type endless struct{}

func (e *endless) Error() string { return "endless" }
func (e *endless) Unwrap() error { return e }

type explosive struct{}

func (*explosive) Error() string { return "explosive" }
func (*explosive) Unwrap() error { panic("not this one") }

func TestKeyGetsItsValueItsErrorOrNoResult(t *testing.T) {
	batch := coalesce.BatchError{"sold": errSold, "fine": nil}
	vals := map[string]int{"one": 1, "sold": 2, "fine": 3}
	for _, c := range []struct {
		what string
		err  error
		want map[string]error // of the keys one, sold, fine, lost
	}{
		{"no error", nil, map[string]error{"lost": coalesce.ErrNoResult}},
		{"an error", errSold, map[string]error{"one": errSold, "sold": errSold, "fine": errSold, "lost": errSold}},
		{"a BatchError", batch, map[string]error{"sold": errSold, "lost": coalesce.ErrNoResult}},
		{"a wrapped BatchError", fmt.Errorf("reading: %w", batch), map[string]error{"sold": errSold, "lost": coalesce.ErrNoResult}},
		{"an empty BatchError", coalesce.BatchError(nil), map[string]error{"lost": coalesce.ErrNoResult}},
	} {
		o := outcomes.Of(vals, c.err)
		if !o.Returned() {
			t.Errorf("%s: a function that returned has not", c.what)
		}
		for _, key := range []string{"one", "sold", "fine", "lost"} {
			want := vals[key]
			if c.want[key] != nil {
				want = 0 // there is no value beside an error
			}
			if val, err := o.Key(key); val != want || err != c.want[key] {
				t.Errorf("%s: key %s gets %d, %v, want %d, %v", c.what, key, val, err, want, c.want[key])
			}
		}
	}
}

func TestErrorsOfAnyShapeAreEveryKeys(t *testing.T) {
	joined := errors.Join(errSold, coalesce.BatchError{"other": errSold})
	for _, err := range []error{joined, &endless{}, &explosive{}, (*explosive)(nil)} {
		o := outcomes.Of(map[string]int{"key": 1}, err)
		if val, got := o.Key("key"); val != 0 || got != err {
			t.Errorf("%T: the key gets %d, %v", err, val, got)
		}
	}
}

type productID string

func TestKeysThatAreNoStringsHaveNamesInABatchError(t *testing.T) {
	numbers := outcomes.Of(map[int]int{7: 1, 8: 2}, coalesce.BatchError{"7": errSold})
	if _, err := numbers.Key(7); err != errSold {
		t.Errorf("key 7 gets %v", err)
	}
	if val, err := numbers.Key(8); val != 2 || err != nil {
		t.Errorf("key 8 gets %d, %v", val, err)
	}
	named := outcomes.Of(map[productID]int{}, coalesce.BatchError{"sold": errSold})
	if _, err := named.Key("sold"); err != errSold {
		t.Errorf("key sold gets %v", err)
	}
}

func TestFunctionThatDoesNotReturnIsEveryKeysError(t *testing.T) {
	keys := []string{"one", "two"}
	o := outcomes.Run(context.Background(), keys, func(context.Context, []string) (map[string]int, error) { panic(errSold) }, nil)
	for _, key := range keys {
		_, err := o.Key(key)
		var panicked *coalesce.PanicError
		if o.Returned() || !errors.As(err, &panicked) || panicked.Value != errSold {
			t.Errorf("key %s gets %v", key, err)
		}
	}
	o = outcomes.Run[string, int](context.Background(), keys, nil, nil)
	if err, ok := o.Err().(*coalesce.PanicError); !ok || o.Returned() {
		t.Errorf("a nil function is %v", err)
	}
	exits := make(chan outcomes.Outcomes[string, int], 1)
	go func() {
		outcomes.Run(context.Background(), keys, func(context.Context, []string) (map[string]int, error) {
			runtime.Goexit()
			return nil, nil
		}, func(o outcomes.Outcomes[string, int]) { exits <- o })
		exits <- outcomes.Outcomes[string, int]{} // not reached
	}()
	o = <-exits
	if _, err := o.Key("one"); err != coalesce.ErrGoexit || o.Returned() {
		t.Errorf("a function that exits is %v", err)
	}
}
