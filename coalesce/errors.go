package coalesce

import (
	"context"
	"errors"
	"fmt"
)

var (
	// ErrFlightTimeout is returned to everyone who waits for a function that
	// did not return within the flight timeout. It also is a
	// context.DeadlineExceeded.
	ErrFlightTimeout error = timeoutError{}
	// ErrPoisoned is returned when the leaders of a key died one after
	// another until the allowed takeovers were used up.
	ErrPoisoned = errors.New("fleetcall: every replica that led this key died before it had a result")
	// ErrRemotePanic is what a panic of the function is to callers on other
	// replicas than the one it happened on.
	ErrRemotePanic = errors.New("fleetcall: the function panicked on another replica")
	// ErrGoexit is what runtime.Goexit in the function is to callers that
	// cannot be made to exit themselves: those of DoChan, and those on other
	// replicas.
	ErrGoexit = errors.New("fleetcall: the function called runtime.Goexit")
	// ErrUnavailable is returned instead of a fallback by a group that fails
	// closed, when Redis cannot be used.
	ErrUnavailable = errors.New("fleetcall: Redis cannot be used")
	// ErrClosed is returned by a group after its fleet's Close.
	ErrClosed = errors.New("fleetcall: the fleet is closed")
)

type timeoutError struct{}

func (timeoutError) Error() string        { return "fleetcall: the function exceeded the flight timeout" }
func (timeoutError) Timeout() bool        { return true }
func (timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// PanicError is the value with which a panic of a caller's function reaches
// every local caller.
type PanicError struct {
	Value any    // what the function panicked with
	Stack []byte // of the goroutine that panicked, as by debug.Stack
}

// Error returns the value and the original stack.
func (e *PanicError) Error() string {
	if e == nil {
		return "<nil>"
	}
	return fmt.Sprintf("%v\n\n%s", e.Value, e.Stack)
}

// Unwrap returns the value when it is an error.
func (e *PanicError) Unwrap() error {
	if e == nil {
		return nil
	}
	err, _ := e.Value.(error)
	return err
}
