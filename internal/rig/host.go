package rig

import (
	"fmt"
	"slices"
	"testing"
)

// Host is a testing.TB for programs that are not tests. Where a test would fail, a Host
// panics with a HostError.
type Host struct {
	testing.TB // always nil: the packages of rig call only the methods below
	cleanups   []func()
}

// HostError is the value with which a Host panics.
type HostError struct{ Err error }

// Helper does nothing.
func (h *Host) Helper() {}

// Cleanup registers f for Close.
func (h *Host) Cleanup(f func()) { h.cleanups = append(h.cleanups, f) }

// Fatal panics with a HostError.
func (h *Host) Fatal(args ...any) { panic(HostError{Err: fmt.Errorf("%s", fmt.Sprint(args...))}) }

// Fatalf panics with a HostError.
func (h *Host) Fatalf(format string, args ...any) { panic(HostError{Err: fmt.Errorf(format, args...)}) }

// Errorf panics with a HostError.
func (h *Host) Errorf(format string, args ...any) { panic(HostError{Err: fmt.Errorf(format, args...)}) }

// Close calls the functions that Cleanup registered, the last one first.
func (h *Host) Close() {
	for _, f := range slices.Backward(h.cleanups) {
		f()
	}
}

// Recover turns a panic with a HostError into an error. It must be deferred.
func Recover(err *error) {
	switch value := recover().(type) {
	case nil:
	case HostError:
		*err = value.Err
	default:
		panic(value)
	}
}
