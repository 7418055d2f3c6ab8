package chaos

import (
	"context"
	"errors"
	"sync"

	"github.com/fleetcall/fleetcall/coalesce"
)

// askMany calls the group for many keys. A group that has no DoMany is called for each of
// them.
func askMany(ctx context.Context, group coalesce.Group[string], keys []string, fn manyFunc) (map[string]coalesce.Result[string], error) {
	if g, ok := group.(interface {
		DoMany(context.Context, []string, manyFunc) (map[string]coalesce.Result[string], error)
	}); ok {
		return g.DoMany(ctx, keys, fn)
	}
	var mu sync.Mutex
	var calls sync.WaitGroup
	results, panicked := map[string]coalesce.Result[string]{}, (*coalesce.PanicError)(nil)
	asked := map[string]bool{}
	for _, key := range keys {
		if asked[key] {
			continue
		}
		asked[key] = true
		calls.Go(func() {
			own := false
			defer func() {
				p, ok := recover().(*coalesce.PanicError)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case ok && own:
					panicked = p
				case ok:
					results[key] = coalesce.Result[string]{Role: coalesce.LocalFollower, Err: p}
				}
			}()
			value, role, err := group.Do(ctx, key, func(ctx context.Context) (string, error) {
				own = true
				return ofOne(ctx, key, fn)
			})
			mu.Lock()
			results[key] = coalesce.Result[string]{Val: value, Role: role, Err: err}
			mu.Unlock()
		})
	}
	calls.Wait()
	if panicked != nil {
		panic(panicked)
	}
	return results, ctx.Err()
}

func ofOne(ctx context.Context, key string, fn manyFunc) (string, error) {
	values, err := fn(ctx, []string{key})
	if failed := (coalesce.BatchError)(nil); errors.As(err, &failed) && failed[key] != nil {
		return "", failed[key]
	}
	if value, ok := values[key]; ok || err != nil {
		return value, err
	}
	return "", coalesce.ErrNoResult
}
