// Package outcomes has what a batch's function came to, whether it returned or not. What
// each key gets of it is said in one place for all tiers: coalesce.ResultOf.
package outcomes

import (
	"context"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/lost"
)

// Outcomes is what one call of a batch's function came to. It may be read by several
// goroutines, as long as nobody changes the map that the function returned.
type Outcomes[K comparable, V any] struct {
	vals map[K]V
	err  error
	lost bool // it did not return
}

// Run calls fn, which may panic or exit, and returns what it came to. Goexit cannot be
// stopped: then the outcomes go to exited, which may be nil, while the goroutine exits.
func Run[K comparable, V any](ctx context.Context, keys []K, fn func(context.Context, []K) (map[K]V, error), exited func(Outcomes[K, V])) (o Outcomes[K, V]) {
	returned := false
	defer func() {
		if returned {
			return
		}
		o = Outcomes[K, V]{err: lost.Error(recover()), lost: true}
		if o.err == coalesce.ErrGoexit && exited != nil {
			exited(o)
		}
	}()
	vals, err := fn(ctx, keys)
	o = Of(vals, err)
	returned = true
	return o
}

// Of returns the outcomes of a function that returned vals and err.
func Of[K comparable, V any](vals map[K]V, err error) Outcomes[K, V] {
	return Outcomes[K, V]{vals: vals, err: err}
}

// Returned is false for a function that panicked or exited. Then every key's error is Err.
func (o *Outcomes[K, V]) Returned() bool { return !o.lost }

// Err returns what the function returned: a *coalesce.PanicError or coalesce.ErrGoexit if
// it did not return.
func (o *Outcomes[K, V]) Err() error { return o.err }

// Key returns what key gets, as coalesce.ResultOf says.
func (o *Outcomes[K, V]) Key(key K) (V, error) {
	if o.lost {
		var none V
		return none, o.err
	}
	return coalesce.ResultOf(o.vals, o.err, key)
}
