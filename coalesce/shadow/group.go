package shadow

import (
	"context"
	"errors"
	"fmt"

	"github.com/fleetcall/fleetcall/coalesce"
)

// Group is a coalesce.Group in which every caller runs its own function, and that tells
// what the other tiers would have saved. All its roles are Leader.
type Group[V any] struct {
	fleet *Fleet
	group *counted
}

var _ coalesce.Group[int] = (*Group[int])(nil)

// NewGroup returns a Group of the Fleet. Calls on Groups of one name are those of one
// group on every replica, as in package distributed: a Fleet has one Group of a name.
func NewGroup[V any](f *Fleet, name string) (*Group[V], error) {
	if f == nil {
		return nil, errors.New("fleetcall: shadow.NewGroup: the Fleet is nil; make one with shadow.Open")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, other := range f.groups {
		if other.name == name {
			return nil, fmt.Errorf("fleetcall: shadow.NewGroup: the Fleet has a group %q already", name)
		}
	}
	g := &counted{name: name, seed: hashString(hashSeed, name)}
	f.groups = append(f.groups, g)
	return &Group[V]{f, g}, nil
}

// Do runs fn with ctx, on the caller's goroutine, as coalesce.Off does.
func (g *Group[V]) Do(ctx context.Context, key string, fn func(context.Context) (V, error)) (val V, role coalesce.Role, err error) {
	if err := ctx.Err(); err != nil {
		return val, 0, err
	}
	c := g.fleet.start(g.group, key)
	defer func() { g.fleet.end(&c, err != nil && ctx.Err() != nil, 1) }()
	val, role, err = coalesce.Off[V]{}.Do(ctx, key, fn)
	return val, role, err
}

// DoMany runs fn with ctx for all keys, as coalesce.Off does. Each key counts as a call,
// with its part of the function's time.
func (g *Group[V]) DoMany(ctx context.Context, keys []string, fn func(context.Context, []string) (map[string]V, error)) (map[string]coalesce.Result[V], error) {
	return coalesce.Off[V]{}.DoMany(ctx, keys, func(ctx context.Context, keys []string) (vals map[string]V, err error) {
		calls := make([]call, len(keys))
		for i, key := range keys {
			calls[i] = g.fleet.start(g.group, key)
		}
		defer func() {
			for i := range calls {
				g.fleet.end(&calls[i], err != nil && ctx.Err() != nil, len(calls))
			}
		}()
		vals, err = fn(ctx, keys)
		return vals, err
	})
}

// Forget notes that the next calls for these keys would have started flights anew.
func (g *Group[V]) Forget(_ context.Context, keys ...string) error {
	for _, key := range keys {
		g.fleet.forget(g.group, key)
	}
	return nil
}
