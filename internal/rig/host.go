package rig

import (
	"fmt"
	"slices"
	"testing"
)

// Host starts servers in a program that is no test: what would fail the test
// panics with a HostError.
type Host struct {
	testing.TB // never used: all that the packages of rig call is below
	cleanups   []func()
}

// HostError is what a Host panics with.
type HostError struct{ Err error }

// Helper does nothing.
func (h *Host) Helper() {}

// Cleanup keeps f for Close.
func (h *Host) Cleanup(f func()) { h.cleanups = append(h.cleanups, f) }

// Fatal panics.
func (h *Host) Fatal(args ...any) { panic(HostError{Err: fmt.Errorf("%s", fmt.Sprint(args...))}) }

// Fatalf panics.
func (h *Host) Fatalf(format string, args ...any) { panic(HostError{Err: fmt.Errorf(format, args...)}) }

// Errorf panics.
func (h *Host) Errorf(format string, args ...any) { panic(HostError{Err: fmt.Errorf(format, args...)}) }

// Close runs what Cleanup was given, the last first.
func (h *Host) Close() {
	for _, f := range slices.Backward(h.cleanups) {
		f()
	}
}

// Recover, deferred, makes a HostError that was panicked with an error.
func Recover(err *error) {
	switch value := recover().(type) {
	case nil:
	case HostError:
		*err = value.Err
	default:
		panic(value)
	}
}
