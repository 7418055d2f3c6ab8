package distributed

import (
	"context"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/lost"
)

// Observed returns group with an observer that is told of its calls and of the
// functions they run: Called and Run. It is for a local.Group or coalesce.Off;
// a Group of this package has WithObserver, which tells more.
func Observed[V any](group coalesce.Group[V], observer Observer) coalesce.Group[V] {
	return observed[V]{group, observer}
}

type observed[V any] struct {
	coalesce.Group[V]
	observer Observer
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
		o.observer.Called(ctx, Call{Key: key, Role: role, Err: err, Wait: time.Since(arrived)})
		if value != nil {
			panic(value)
		}
	}()
	val, role, err = o.Group.Do(ctx, key, observeFunction(o.observer, Run{Key: key, Role: coalesce.Leader}, fn))
	return val, role, err
}
