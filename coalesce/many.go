package coalesce

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
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
// others: each key's own error. Keys that are no strings are named as by fmt.Sprint.
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

// ResultOf returns what key gets when a batch's function has returned vals and err: a
// value or an error, and never both. It is for those who write a Group of their own.
//
// A BatchError, wrapped by other errors or not, is no error of all keys: those that it has
// an error for fail with that one, and the others have what vals says. One that is joined
// with other errors is not looked for: what stands beside it is everybody's. Any other
// error is every key's, whatever vals has. A key that has neither a value nor an error
// gets ErrNoResult.
func ResultOf[K comparable, V any](vals map[K]V, err error, key K) (V, error) {
	var none V
	if err != nil {
		failed, some := batchError(err)
		if !some {
			return none, err
		}
		if err := failed[nameOf(key)]; err != nil {
			return none, err
		}
	}
	val, ok := vals[key]
	if !ok {
		return none, ErrNoResult
	}
	return val, nil
}

// nameOf is what a key is called in a BatchError.
func nameOf[K comparable](key K) string {
	if name, ok := any(key).(string); ok {
		return name
	}
	if v := reflect.ValueOf(key); v.Kind() == reflect.String {
		return v.String()
	}
	return fmt.Sprint(key)
}

// maxWrapped is how many errors may be around a BatchError. Real ones have one or two.
const maxWrapped = 100

// batchError finds a BatchError in a chain of errors, which is foreign code: it may be
// endless, and its methods may panic.
func batchError(err error) (failed BatchError, ok bool) {
	defer func() {
		if recover() != nil {
			failed, ok = nil, false
		}
	}()
	for range maxWrapped {
		if failed, ok := err.(BatchError); ok {
			return failed, true
		}
		wrapper, ok := err.(interface{ Unwrap() error })
		if !ok {
			return nil, false
		}
		err = wrapper.Unwrap()
	}
	return nil, false
}
