package coalesce

import (
	"context"
	"fmt"

	"github.com/fleetcall/fleetcall/coalesce/internal/errtree"
)

// Outcome sorts how calls end into a few kinds, so that metrics and spans can be
// labelled with them.
type Outcome uint8

// The kinds, all of them.
const (
	// OutcomeOK is a result.
	OutcomeOK Outcome = iota
	// OutcomeError is an error of the function's own.
	OutcomeError
	// OutcomePanic is a function that panicked or exited, here or on another
	// replica.
	OutcomePanic
	// OutcomeTimeout is a deadline that passed: of the flight, of the caller, or
	// one of the function's own.
	OutcomeTimeout
	// OutcomeCanceled is a caller that left.
	OutcomeCanceled
	// OutcomeRefused is a call that the group did not make: it is closed, the key
	// is poisoned, or Redis cannot be used and the group fails closed.
	OutcomeRefused
)

// Outcomes returns all kinds.
func Outcomes() []Outcome {
	return []Outcome{OutcomeOK, OutcomeError, OutcomePanic, OutcomeTimeout, OutcomeCanceled, OutcomeRefused}
}

// String returns the kind in lower case, as a label.
func (o Outcome) String() string {
	switch o {
	case OutcomeOK:
		return "ok"
	case OutcomeError:
		return "error"
	case OutcomePanic:
		return "panic"
	case OutcomeTimeout:
		return "timeout"
	case OutcomeCanceled:
		return "canceled"
	case OutcomeRefused:
		return "refused"
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// OutcomeOf returns the kind of err, which a call returned. Like NewRemoteError it
// survives what the methods of err do.
func OutcomeOf(err error) Outcome {
	if err == nil {
		return OutcomeOK
	}
	var found [OutcomeRefused + 1]bool
	errtree.Walk(err, func(err error) bool {
		if _, panicked := err.(*PanicError); panicked {
			found[OutcomePanic] = true
		}
		for _, known := range knownOutcomes {
			if errtree.Matches(err, known.err) {
				found[known.outcome] = true
			}
		}
		return true
	})
	for _, outcome := range []Outcome{OutcomePanic, OutcomeRefused, OutcomeTimeout, OutcomeCanceled} {
		if found[outcome] {
			return outcome
		}
	}
	return OutcomeError
}

var knownOutcomes = []struct {
	err     error
	outcome Outcome
}{
	{ErrRemotePanic, OutcomePanic},
	{ErrGoexit, OutcomePanic},
	{ErrClosed, OutcomeRefused},
	{ErrPoisoned, OutcomeRefused},
	{ErrUnavailable, OutcomeRefused},
	{context.DeadlineExceeded, OutcomeTimeout}, // ErrFlightTimeout is one
	{context.Canceled, OutcomeCanceled},
}
