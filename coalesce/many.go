package coalesce

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Result is what DoMany brings for one key.
type Result[V any] struct {
	Val  V
	Role Role
	Err  error
}

// ErrNoResult is a key's error when the function of a batch returned no result for it. It
// is a definite answer to everyone who waits for the key, on every replica.
var ErrNoResult = errors.New("fleetcall: the function returned no result for this key")

// BatchError is what a batch's function returns to fail some of its keys, and not the
// others: each key's own error.
type BatchError map[string]error

// Error tells how many keys have failed, and why the first of them has, in the order of
// the keys.
func (e BatchError) Error() string {
	keys := slices.Sorted(maps.Keys(e))
	if len(keys) == 0 {
		return "fleetcall: no key failed"
	}
	return fmt.Sprintf("fleetcall: %d keys failed, %q first: %v", len(keys), keys[0], e[keys[0]])
}

// Unwrap returns the errors of all keys, in the order of the keys.
func (e BatchError) Unwrap() []error {
	errs := make([]error, 0, len(e))
	for _, key := range slices.Sorted(maps.Keys(e)) {
		if e[key] != nil {
			errs = append(errs, e[key])
		}
	}
	return errs
}
