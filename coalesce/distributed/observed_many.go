package distributed

import (
	"context"
	"slices"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/lost"
	"github.com/fleetcall/fleetcall/coalesce/internal/outcomes"
)

// DoMany calls the group's. Hooks are told of each key, as if it had been called for by
// itself.
func (o observed[V]) DoMany(ctx context.Context, keys []string, fn func(context.Context, []string) (map[string]V, error)) (results map[string]coalesce.Result[V], err error) {
	arrived := time.Now()
	returned := false
	defer func() {
		if returned {
			return
		}
		value := recover()
		lostAs := lost.Error(value)
		seen := make(map[string]bool, len(keys))
		for _, key := range keys {
			if !seen[key] {
				seen[key] = true
				o.hooks.callEnded(ctx, Call{Group: o.name, Key: key, Err: lostAs, Wait: time.Since(arrived)})
			}
		}
		if value != nil {
			panic(value)
		}
	}()
	results, err = o.Group.DoMany(ctx, keys, wrapMany(o.hooks, func(key string) (context.Context, Run) {
		return nil, Run{Group: o.name, Key: key, Role: coalesce.Leader}
	}, fn))
	returned = true
	for key, r := range results {
		o.hooks.callEnded(ctx, Call{Group: o.name, Key: key, Role: r.Role, Err: r.Err, Wait: time.Since(arrived)})
	}
	return results, err
}

// wrapMany is wrap for a batch's function. The hooks are told of a run of each key, which
// ends with that key's error. Of each key but the first, they get the context that of
// returns; where that is nil, and of the first key, the function's own. The one that they
// return for the first key is what the function gets.
func wrapMany[V any](h *hooks, of func(key string) (context.Context, Run), fn func(context.Context, []string) (map[string]V, error)) func(context.Context, []string) (map[string]V, error) {
	if len(h.run) == 0 {
		return fn
	}
	return func(ctx context.Context, keys []string) (vals map[string]V, err error) {
		given := slices.Clone(keys) // the function may sort its own
		ended := make([][]func(error), len(keys))
		endAllRuns := func(o outcomes.Outcomes[string, V]) {
			for i, key := range given {
				_, err := o.Key(key)
				defer endAll(ended[i], err) // each is told, though another one panics
			}
		}
		o := outcomes.Run(ctx, keys, func(ctx context.Context, keys []string) (map[string]V, error) {
			first := ctx
			for i, key := range keys {
				own, run := of(key)
				if own == nil || i == 0 {
					own = ctx
				}
				for _, hook := range h.run {
					var end func(error)
					own, end = hook.Run(own, run)
					ended[i] = append(ended[i], end)
				}
				if i == 0 {
					first = own
				}
			}
			vals, err = fn(first, keys)
			return vals, err
		}, endAllRuns)
		endAllRuns(o)
		if panicked, ok := o.Err().(*coalesce.PanicError); ok && !o.Returned() {
			panic(panicked)
		}
		return vals, err
	}
}
