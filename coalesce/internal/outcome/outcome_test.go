package outcome_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/outcome"
)

func TestEveryErrorHasItsKind(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, outcome.OK},
		{errors.New("no"), outcome.Error},
		{&coalesce.RemoteError{Message: "no"}, outcome.Error},
		{&coalesce.PanicError{Value: context.Canceled}, outcome.Panic},
		{fmt.Errorf("outer: %w", coalesce.ErrRemotePanic), outcome.Panic},
		{coalesce.ErrGoexit, outcome.Panic},
		{coalesce.ErrFlightTimeout, outcome.Timeout},
		{context.DeadlineExceeded, outcome.Timeout},
		{context.Canceled, outcome.Canceled},
		{coalesce.ErrClosed, outcome.Refused},
		{coalesce.ErrPoisoned, outcome.Refused},
		{fmt.Errorf("%w (timeout): %w", coalesce.ErrUnavailable, context.DeadlineExceeded), outcome.Refused},
	} {
		got := outcome.Of(tt.err)
		if got != tt.want {
			t.Errorf("%v is %s, want %s", tt.err, got, tt.want)
		}
		if !slices.Contains(outcome.All, got) {
			t.Errorf("%s is none of the kinds", got)
		}
	}
}
