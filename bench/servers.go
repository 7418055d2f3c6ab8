package main

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	"fleetcall/internal/testserver"
)

// host is what testserver wants of a test, for a program that is none. What
// would fail the test panics with a hostError.
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

// startRedis starts a private redis-server that ends with stop.
func startRedis() (addr string, stop func()) {
	h := &host{}
	return testserver.StartRedis(h).Addr, h.close
}

// newClient returns a client as a service makes it: with go-redis' defaults.
func newClient(addr string) *redis.Client { return redis.NewClient(&redis.Options{Addr: addr}) }

// must is for what a benchmark cannot go on without; main prints the error.
func must(err error) {
	if err != nil {
		panic(hostError{err})
	}
}

func value[T any](v T, err error) T {
	must(err)
	return v
}

func background() context.Context { return context.Background() }
