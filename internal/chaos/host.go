package chaos

import (
	"fmt"
	"slices"
	"testing"
)

// host is what testserver wants of a test, for a program that is none. What
// fails the test there, panics here with a hostError.
type host struct {
	testing.TB // never used: all that testserver calls is below
	cleanups   []func()
}

type hostError struct{ error }

func (h *host) Helper()                      {}
func (h *host) Cleanup(f func())             { h.cleanups = append(h.cleanups, f) }
func (h *host) Fatal(args ...any)            { panic(hostError{fmt.Errorf("%s", fmt.Sprint(args...))}) }
func (h *host) Fatalf(f string, args ...any) { panic(hostError{fmt.Errorf(f, args...)}) }
func (h *host) Errorf(f string, args ...any) { panic(hostError{fmt.Errorf(f, args...)}) }

// close runs what Cleanup was given, the last first.
func (h *host) close() {
	for _, f := range slices.Backward(h.cleanups) {
		f()
	}
}

// recovered makes a hostError that was panicked with an error.
func recovered(err *error) {
	switch value := recover().(type) {
	case nil:
	case hostError:
		*err = value.error
	default:
		panic(value)
	}
}
