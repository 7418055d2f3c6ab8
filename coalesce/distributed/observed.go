package distributed

import (
	"context"
	"fmt"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/lost"
)

// Observed returns group with hooks that are told of its calls and of the functions
// they run: those that are a CallHook or a RunHook. It is for a local.Group or
// coalesce.Off; the hooks of a Fleet, which are told more, are WithHooks. name is the
// group's in what they are told. Observed refuses a hook that is neither.
func Observed[V any](group coalesce.Group[V], name string, all ...Hook) (coalesce.Group[V], error) {
	o := observed[V]{Group: group, name: name, hooks: new(hooks)}
	for i, hook := range all {
		if err := o.hooks.add(hook); err != nil {
			return nil, fmt.Errorf("fleetcall: Observed: hook %d %w", i+1, err)
		}
		if _, called := hook.(CallHook); called {
			continue
		}
		if _, run := hook.(RunHook); !run {
			return nil, fmt.Errorf("fleetcall: Observed: hook %d is neither a CallHook nor a RunHook; nothing else happens here", i+1)
		}
	}
	return o, nil
}

type observed[V any] struct {
	coalesce.Group[V]
	name  string
	hooks *hooks
}

// Do calls the group's.
func (o observed[V]) Do(ctx context.Context, key string, fn func(context.Context) (V, error)) (V, coalesce.Role, error) {
	arrived := time.Now()
	var (
		val  V
		role coalesce.Role
	)
	err := coalesce.ErrGoexit
	defer func() {
		value := recover()
		if value != nil {
			err = lost.Error(value)
		}
		o.hooks.callEnded(ctx, Call{Group: o.name, Key: key, Role: role, Err: err, Wait: time.Since(arrived)})
		if value != nil {
			panic(value)
		}
	}()
	val, role, err = o.Group.Do(ctx, key, wrap(o.hooks, Run{Group: o.name, Key: key, Role: coalesce.Leader}, fn))
	return val, role, err
}

// observed is Do for a Group whose Fleet has a CallHook.
func (g *Group[V]) observed(ctx context.Context, key string, arrived time.Time, fn func(context.Context) (V, error)) (_ V, role coalesce.Role, err error) {
	var r *result[V]
	defer func() {
		var value any
		flight, trace := "", ""
		if r != nil {
			flight, trace = r.flight, r.trace
		} else {
			value = recover()
			err = coalesce.ErrGoexit
			if panicked, ok := value.(*coalesce.PanicError); ok {
				err = panicked
			}
		}
		g.hooks.callEnded(ctx, Call{Group: g.name, Key: key, Flight: flight, Trace: trace, Role: role, Err: err, Wait: time.Since(arrived)})
		if value != nil {
			panic(value)
		}
	}()
	r, role, err = g.call(ctx, key, arrived, fn)
	return r.val, role, err
}
