package coalesce

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
	// ErrClosed is returned by a group after Close.
	ErrClosed = errors.New("fleetcall: group is closed")
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
func (e *PanicError) Error() string { return fmt.Sprintf("%v\n\n%s", e.Value, e.Stack) }

// Unwrap returns the value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// RemoteError is an error that the function returned on another replica. It
// has the original's message; errors.Is finds in it every error that was
// registered under the same name here and there.
type RemoteError struct {
	Message string
	Names   []string // the registered errors that the original was
}

func (e *RemoteError) Error() string { return e.Message }

// Unwrap returns the errors registered here under e.Names.
func (e *RemoteError) Unwrap() []error {
	var errs []error
	for _, name := range e.Names {
		if err, ok := registry.byName.Load(name); ok {
			errs = append(errs, err.(error))
		}
	}
	return errs
}

var registry struct {
	sync.Mutex
	byName sync.Map // name → error
	names  []string // in order of registration; guarded by Mutex
}

func init() {
	for name, err := range map[string]error{
		"fleetcall.ErrFlightTimeout": ErrFlightTimeout,
		"fleetcall.ErrRemotePanic":   ErrRemotePanic,
		"fleetcall.ErrGoexit":        ErrGoexit,
		"context.DeadlineExceeded":   context.DeadlineExceeded,
	} {
		RegisterError(name, err)
	}
}

// RegisterError makes err recognisable by errors.Is across replicas. Each
// replica registers it under the same name, usually in an init function or a
// package variable. RegisterError panics when name or err is empty, or name
// is taken by another error: that is a mistake in the program.
func RegisterError(name string, err error) {
	if name == "" || err == nil {
		panic("fleetcall: RegisterError needs a name and an error")
	}
	registry.Lock()
	defer registry.Unlock()
	if other, loaded := registry.byName.LoadOrStore(name, err); loaded {
		if other != err {
			panic(fmt.Sprintf("fleetcall: RegisterError: name %q is taken by another error", name))
		}
		return
	}
	registry.names = append(registry.names, name)
}

// ErrorNames returns the names of the registered errors that err is, by
// errors.Is.
func ErrorNames(err error) []string {
	registry.Lock()
	all := registry.names[:len(registry.names):len(registry.names)]
	registry.Unlock()
	var names []string
	for _, name := range all {
		if registered, ok := registry.byName.Load(name); ok && errors.Is(err, registered.(error)) {
			names = append(names, name)
		}
	}
	return names
}
