// Package outcome sorts how calls end into a few kinds, so that metrics and
// spans can be labelled with them.
package outcome

import (
	"context"
	"errors"

	"github.com/fleetcall/fleetcall/coalesce"
)

// The kinds, all of them.
const (
	OK       = "ok"
	Error    = "error"    // the function's own
	Panic    = "panic"    // it panicked or exited, here or on another replica
	Timeout  = "timeout"  // of the flight, or of the caller
	Canceled = "canceled" // the caller left
	Refused  = "refused"  // the group is closed, the key poisoned, or Redis gone and the group fails closed
)

// All are the kinds.
var All = []string{OK, Error, Panic, Timeout, Canceled, Refused}

// Of returns the kind of err.
func Of(err error) string {
	if err == nil {
		return OK
	}
	var panicked *coalesce.PanicError
	switch {
	case errors.As(err, &panicked), errors.Is(err, coalesce.ErrRemotePanic), errors.Is(err, coalesce.ErrGoexit):
		return Panic
	case errors.Is(err, coalesce.ErrClosed), errors.Is(err, coalesce.ErrPoisoned), errors.Is(err, coalesce.ErrUnavailable):
		return Refused
	case errors.Is(err, context.DeadlineExceeded): // coalesce.ErrFlightTimeout is one
		return Timeout
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Error
}
