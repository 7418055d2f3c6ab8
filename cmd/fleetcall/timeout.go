package main

import (
	"context"
	"errors"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// withFlightTimeout gives the local tier the flight timeout that the
// distributed one has by itself.
func withFlightTimeout[V any](group coalesce.Group[V], timeout time.Duration) coalesce.Group[V] {
	return timed[V]{group, timeout}
}

type timed[V any] struct {
	coalesce.Group[V]
	timeout time.Duration
}

// Do runs fn under a context that ends with the timeout; then its callers get
// coalesce.ErrFlightTimeout.
func (t timed[V]) Do(ctx context.Context, key string, fn func(context.Context) (V, error)) (V, coalesce.Role, error) {
	return t.Group.Do(ctx, key, func(ctx context.Context) (V, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, coalesce.ErrFlightTimeout)
		defer cancel()
		v, err := fn(ctx)
		if err != nil && errors.Is(err, ctx.Err()) && errors.Is(context.Cause(ctx), coalesce.ErrFlightTimeout) {
			err = coalesce.ErrFlightTimeout
		}
		return v, err
	})
}

// DoMany is Do for many keys: the function has the flight timeout for all of them.
func (t timed[V]) DoMany(ctx context.Context, keys []string, fn func(context.Context, []string) (map[string]V, error)) (map[string]coalesce.Result[V], error) {
	return t.Group.DoMany(ctx, keys, func(ctx context.Context, keys []string) (map[string]V, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, t.timeout, coalesce.ErrFlightTimeout)
		defer cancel()
		vals, err := fn(ctx, keys)
		if err != nil && errors.Is(err, ctx.Err()) && errors.Is(context.Cause(ctx), coalesce.ErrFlightTimeout) {
			err = coalesce.ErrFlightTimeout
		}
		return vals, err
	})
}
