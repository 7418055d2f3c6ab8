package chaos

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/proof/history"
)

// recorder is the hook that writes down what a replica's group does.
type recorder struct {
	history    *history.Writer
	process    string
	executions atomic.Uint64
}

var (
	_ distributed.CallHook  = (*recorder)(nil)
	_ distributed.RunHook   = (*recorder)(nil)
	_ distributed.LeaseHook = (*recorder)(nil)
)

// executionKey is of a function's context: the execution's name.
type executionKey struct{}

// flightKey is of a caller's context: where to put the flight it got.
type flightKey struct{}

// write ends the process when its history cannot be written: without it the
// run proves nothing.
func (r *recorder) write(record history.Record) {
	if _, err := r.history.Write(record); err != nil {
		panic(err)
	}
}

// Called notes whose result the call got.
func (r *recorder) Called(ctx context.Context, call distributed.Call) {
	if flight, ok := ctx.Value(flightKey{}).(*string); ok {
		*flight = call.Flight
	}
}

// Run names the execution and writes down its start and its end.
func (r *recorder) Run(ctx context.Context, run distributed.Run) (context.Context, func(error)) {
	execution := fmt.Sprintf("%s/e%d", r.process, r.executions.Add(1))
	record := history.Record{Kind: history.Started, Key: run.Key, Flight: run.Flight, Execution: execution}
	started := record
	started.Role, started.Cause, started.Takeover = run.Role.String(), run.Cause, run.Takeover
	r.write(started)
	return context.WithValue(ctx, executionKey{}, execution), func(err error) {
		record.Kind = history.Ended
		record.Outcome, record.Error = ended(err), message(err)
		r.write(record)
	}
}

// Lease writes down a change of a lease.
func (r *recorder) Lease(lease distributed.Lease) {
	states := map[distributed.LeaseState]string{
		distributed.LeaseTaken: "taken", distributed.LeaseRenewed: "renewed",
		distributed.LeaseLost: "lost", distributed.LeaseReleased: "released",
	}
	r.write(history.Record{
		Kind: history.LeaseIs, Key: lease.Key, Flight: lease.Flight, State: states[lease.State],
		Asked: history.At(lease.Asked),
	})
}

// ended says how an execution ended.
func ended(err error) history.Outcome {
	var panicked *coalesce.PanicError
	switch {
	case err == nil:
		return history.Value
	case errors.As(err, &panicked):
		return history.Panic
	case errors.Is(err, context.Canceled):
		return history.Cancelled
	case errors.Is(err, context.DeadlineExceeded):
		return history.FlightTimeout
	case errors.Is(err, errKnown):
		return history.KnownError
	}
	return history.OtherError
}

// returned says how a call ended, and whose result it got.
func returned(ctx context.Context, value string, err error) (outcome history.Outcome, execution string) {
	if err == nil {
		execution, _, _ = strings.Cut(value, "|")
		return history.Value, execution
	}
	execution = executionOf(err.Error())
	var panicked *coalesce.PanicError
	switch {
	case errors.As(err, &panicked), errors.Is(err, coalesce.ErrRemotePanic):
		return history.Panic, execution
	case execution != "" && errors.Is(err, errKnown):
		return history.KnownError, execution
	case execution != "" && errors.Is(err, context.DeadlineExceeded):
		return history.FlightTimeout, execution
	case execution != "":
		return history.OtherError, execution
	case errors.Is(err, coalesce.ErrFlightTimeout):
		return history.FlightTimeout, ""
	case err == ctx.Err():
		return history.Cancelled, ""
	case errors.Is(err, coalesce.ErrPoisoned):
		return history.Poisoned, ""
	case errors.Is(err, coalesce.ErrClosed):
		return history.Closed, ""
	case errors.Is(err, coalesce.ErrUnavailable):
		return history.Unavailable, ""
	}
	return history.Strange, ""
}

var namesExecution = regexp.MustCompile(`execution ([^\s:]+)`)

func executionOf(text string) string {
	if found := namesExecution.FindStringSubmatch(text); found != nil {
		return found[1]
	}
	return ""
}

// message is an error's first line: a panic's has a stack after it.
func message(err error) string {
	if err == nil {
		return ""
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
