package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce"
)

func TestEveryErrorHasItsOutcome(t *testing.T) {
	names := map[coalesce.Outcome]string{}
	for _, outcome := range coalesce.Outcomes() {
		names[outcome] = outcome.String()
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, "ok"},
		{errors.New("no"), "error"},
		{&coalesce.RemoteError{Message: "no"}, "error"},
		{&coalesce.PanicError{Value: context.Canceled}, "panic"},
		{fmt.Errorf("outer: %w", coalesce.ErrRemotePanic), "panic"},
		{cross(coalesce.ErrRemotePanic), "panic"},
		{coalesce.ErrGoexit, "panic"},
		{coalesce.ErrFlightTimeout, "timeout"},
		{cross(coalesce.ErrFlightTimeout), "timeout"},
		{context.DeadlineExceeded, "timeout"},
		{context.Canceled, "canceled"},
		{coalesce.ErrClosed, "refused"},
		{coalesce.ErrPoisoned, "refused"},
		{fmt.Errorf("%w (timeout): %w", coalesce.ErrUnavailable, context.DeadlineExceeded), "refused"},
	} {
		got := coalesce.OutcomeOf(tt.err)
		if got.String() != tt.want {
			t.Errorf("%v is %s, want %s", tt.err, got, tt.want)
		}
		if !slices.Contains(coalesce.Outcomes(), got) || names[got] != tt.want {
			t.Errorf("%s is none of the outcomes", got)
		}
	}
	if got := coalesce.Outcome(77).String(); got != "outcome(77)" {
		t.Errorf("an unknown one is %q", got)
	}
}
