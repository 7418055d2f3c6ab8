package coalescehttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/fleetcall/fleetcall/coalesce"
)

// ErrCutShort is what an answer that ended before its end is to those who would have
// shared it. The leader's client sees the cut itself.
var ErrCutShort = errors.New("fleetcall: the answer was cut short")

// errNoResponse is of a base that breaks http.RoundTripper's promise.
var errNoResponse = errors.New("fleetcall: sending the request: the base returned neither an answer with its body nor an error")

// errNoAnswer is a Group that returns neither an answer nor an error.
var errNoAnswer = errors.New("fleetcall: the Group returned no answer")

func init() {
	for name, err := range map[string]error{
		"coalescehttp.ErrCutShort": ErrCutShort,
		"io.ErrUnexpectedEOF":      io.ErrUnexpectedEOF,
		"io.EOF":                   io.EOF,
		"net.ErrClosed":            net.ErrClosed,
		"os.ErrDeadlineExceeded":   os.ErrDeadlineExceeded,
		"syscall.ECONNREFUSED":     syscall.ECONNREFUSED,
		"syscall.ECONNRESET":       syscall.ECONNRESET,
		"syscall.EPIPE":            syscall.EPIPE,
		"syscall.EHOSTUNREACH":     syscall.EHOSTUNREACH,
	} {
		coalesce.RegisterError(name, err)
	}
}

// cutShort is the error of all who share an answer that was cut by cause.
func cutShort(cause error) error {
	if errors.Is(cause, context.Canceled) { // it must not look as if the flight was abandoned
		return fmt.Errorf("%w: %v", ErrCutShort, cause)
	}
	return fmt.Errorf("%w: %w", ErrCutShort, cause)
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// timedOut is a timeout that is one on other replicas, too.
type timedOut struct{ error }

// Is makes timedOut a context.DeadlineExceeded.
func (timedOut) Is(target error) bool { return target == context.DeadlineExceeded }

// Unwrap returns the timeout as it was.
func (e timedOut) Unwrap() error { return e.error }

// flightError is the error of a flight to a caller of the Transport. It says by Timeout
// what http.Client asks for, also where it comes from another replica.
type flightError struct{ error }

// callersError returns err as a caller of the Transport gets it.
func callersError(err error) error {
	if err == context.Canceled || err == context.DeadlineExceeded {
		return err // the caller's own
	}
	return flightError{err}
}

// Timeout makes flightError what net.Error and url.Error look for.
func (e flightError) Timeout() bool {
	return isTimeout(e.error) || errors.Is(e.error, os.ErrDeadlineExceeded)
}

// Temporary makes flightError a net.Error.
func (flightError) Temporary() bool { return false }

// Unwrap returns the error of the flight.
func (e flightError) Unwrap() error { return e.error }
