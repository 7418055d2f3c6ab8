package errtree_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce/internal/errtree"
)

// ring wraps one error, which may be itself.
type ring struct{ next error }

func (*ring) Error() string   { return "ring" }
func (r *ring) Unwrap() error { return r.next }

// fork wraps several errors, which may be itself.
type fork struct{ next []error }

func (*fork) Error() string     { return "fork" }
func (f *fork) Unwrap() []error { return f.next }

// uncomparable cannot be compared with ==.
type uncomparable struct{ parts []int }

func (uncomparable) Error() string { return "uncomparable" }

// alias is context.Canceled by its Is method.
type alias struct{}

func (alias) Error() string        { return "alias" }
func (alias) Is(target error) bool { return target == context.Canceled }

func TestIsAgreesWithErrorsIsOnTreesThatEnd(t *testing.T) {
	other := errors.New("other")
	for name, err := range map[string]error{
		"nil":                   nil,
		"itself":                context.Canceled,
		"another":               other,
		"wrapped":               fmt.Errorf("query: %w", fmt.Errorf("dial: %w", context.Canceled)),
		"a branch":              errors.Join(other, fmt.Errorf("%w and %w", other, context.Canceled)),
		"no branch":             errors.Join(other, fmt.Errorf("%w and %w", other, context.DeadlineExceeded)),
		"by its Is method":      fmt.Errorf("query: %w", alias{}),
		"one without ==":        uncomparable{[]int{1}},
		"one without == inside": fmt.Errorf("%w, %w", uncomparable{}, context.Canceled),
	} {
		for _, target := range []error{context.Canceled, other, uncomparable{}, nil} {
			if got, want := errtree.Is(err, target), errors.Is(err, target); got != want {
				t.Errorf("%s, looked up as %v: %v, but errors.Is says %v", name, target, got, want)
			}
		}
	}
}

func TestIsReturnsFromTreesThatDoNotEnd(t *testing.T) {
	one := &ring{}
	one.next = one
	many := &fork{}
	many.next = []error{many, many, one}
	deep := error(context.Canceled)
	for range 1_000_000 {
		deep = &ring{deep}
	}
	for name, err := range map[string]error{"an error that wraps itself": one, "one that does so twice": many, "a very deep one": deep} {
		if errtree.Is(err, context.Canceled) {
			t.Errorf("%s: found", name)
		}
	}
	many.next = []error{one, context.Canceled}
	if !errtree.Is(many, context.Canceled) {
		t.Error("not found beside an error that wraps itself")
	}
}

func TestIsSurvivesMethodsThatPanic(t *testing.T) {
	if errtree.Is((*ring)(nil), context.Canceled) {
		t.Error("found in a nil pointer")
	}
}
