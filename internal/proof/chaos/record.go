package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	overs      chan over // written by writeOvers
}

// over is that functions have returned, of one run.
type over struct {
	at      int64
	records []history.Record
	flushed chan<- struct{} // closed when all before it is written; nil: it is a run
}

func newRecorder(writer *history.Writer, process string) *recorder {
	r := &recorder{history: writer, process: process, overs: make(chan over, 1024)}
	go r.writeOvers()
	return r
}

// writeOvers writes down when functions have returned. Whoever takes that time must not
// write, too: until the function has returned, callers that come are served.
func (r *recorder) writeOvers() {
	for o := range r.overs {
		for _, record := range o.records {
			record.Kind, record.Asked = history.Over, o.at
			r.write(record)
		}
		if o.flushed != nil {
			close(o.flushed)
		}
	}
}

// flush returns when all that functions have ended with is written.
func (r *recorder) flush() {
	flushed := make(chan struct{})
	r.overs <- over{flushed: flushed}
	<-flushed
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
// run proves nothing. When the replica has ended, a function that goes on is nobody's.
func (r *recorder) write(record history.Record) {
	if _, err := r.history.Write(record); err != nil && !errors.Is(err, os.ErrClosed) {
		panic(err)
	}
}

// Called notes whose result the call got.
func (r *recorder) Called(ctx context.Context, call distributed.Call) {
	if flight, ok := ctx.Value(flightKey{}).(*string); ok {
		*flight = call.Flight
	}
	if b := batchOf(ctx); b != nil {
		b.got(call.Key, call.Flight)
	}
}

// Run names the execution and writes down its start and its end.
func (r *recorder) Run(ctx context.Context, run distributed.Run) (context.Context, func(error)) {
	execution := fmt.Sprintf("%s/e%d", r.process, r.executions.Add(1))
	record := history.Record{Kind: history.Started, Key: run.Key, Flight: run.Flight, Execution: execution}
	started := record
	started.Role, started.Cause, started.Takeover = run.Role.String(), run.Cause, run.Takeover
	r.write(started)
	b := batchOf(ctx)
	if b != nil {
		b.begins(run.Key, execution)
	}
	return context.WithValue(ctx, executionKey{}, execution), func(err error) {
		ends := record
		ends.Kind, ends.Outcome, ends.Error = history.Ended, ended(err), message(err)
		r.write(ends)
		records := []history.Record{record}
		if b != nil {
			if records = b.ends(record); records == nil {
				return // the function of the others has yet to return
			}
		}
		r.overs <- over{at: history.Now(), records: records}
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
	case errors.Is(err, coalesce.ErrNoResult):
		return history.NoResult
	case errors.Is(err, context.Canceled):
		return history.Cancelled
	case errors.Is(err, context.DeadlineExceeded):
		return history.FlightTimeout
	case errors.Is(err, errKnown):
		return history.KnownError
	}
	return history.OtherError
}

// returned says how a call for a key ended, and whose result it got.
func returned(ctx context.Context, key, value string, err error) (outcome history.Outcome, execution string) {
	if err == nil {
		execution, whole := executionOfValue(value)
		if !whole {
			return history.Strange, ""
		}
		return history.Value, execution
	}
	execution = executionIn(err.Error(), key)
	var panicked *coalesce.PanicError
	switch {
	case errors.Is(err, coalesce.ErrNoResult):
		return history.NoResult, ""
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

// message is the start of an error's first line: a panic's has a stack after it, and that
// of a function for many keys names them all.
func message(err error) string {
	if err == nil {
		return ""
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line[:min(len(line), 200)]
}
