package coalescetest_test

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/fleetcall/fleetcall/coalesce"
)

type (
	manyFunction = func(context.Context, []string) (map[string]string, error)
	manyResults  = map[string]coalesce.Result[string]
)

func (m *mutant) DoMany(ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	if m.many == nil {
		return m.Group.DoMany(ctx, keys, fn)
	}
	return m.many(m, ctx, keys, fn)
}

// manys makes a mutant by what is wrong with DoMany.
func manys(many func(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error)) mutant {
	return mutant{many: many}
}

// manyCalls makes a mutant by what is wrong with the keys it calls for.
func manyCalls(wrong func(keys []string)) mutant {
	return manys(func(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
		keys = slices.Clone(keys)
		wrong(keys)
		return m.Group.DoMany(ctx, keys, fn)
	})
}

// manyRuns makes a mutant by what is wrong with how it runs a batch's function.
func manyRuns(wrong func(ctx context.Context, keys []string, fn manyFunction) (map[string]string, error)) mutant {
	return manys(func(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
		return m.Group.DoMany(ctx, keys, func(ctx context.Context, keys []string) (map[string]string, error) { return wrong(ctx, keys, fn) })
	})
}

// manyReturns makes a mutant by what is wrong with each result: false leaves it out.
func manyReturns(wrong func(coalesce.Result[string]) (coalesce.Result[string], bool)) mutant {
	return manys(func(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
		results, err := m.Group.DoMany(ctx, keys, fn)
		for key, r := range results {
			if r, ok := wrong(r); ok {
				results[key] = r
			} else {
				delete(results, key)
			}
		}
		return results, err
	})
}

func eachKey(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	all := manyResults{}
	for _, key := range keys {
		results, err := m.Group.DoMany(ctx, []string{key}, fn)
		if err != nil {
			return all, err
		}
		all[key] = results[key]
	}
	return all, nil
}

func repeatKeys(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	return m.Group.DoMany(ctx, keys, func(ctx context.Context, _ []string) (map[string]string, error) { return fn(ctx, keys) })
}

func runWithoutKeys(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	if len(keys) == 0 {
		_, _ = fn(ctx, keys)
	}
	return m.Group.DoMany(ctx, keys, fn)
}

func leaveOut(r coalesce.Result[string]) (coalesce.Result[string], bool) { return r, r.Err == nil }

func zeroForNone(r coalesce.Result[string]) (coalesce.Result[string], bool) {
	if errors.Is(r.Err, coalesce.ErrNoResult) {
		r.Err = nil
	}
	return r, true
}

func errorOfAll(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	results, err := m.Group.DoMany(ctx, keys, fn)
	for _, r := range results {
		if err == nil {
			err = r.Err
		}
	}
	return results, err
}

func failAll(ctx context.Context, keys []string, fn manyFunction) (map[string]string, error) {
	vals, err := fn(ctx, keys)
	var failed coalesce.BatchError
	if errors.As(err, &failed) {
		err = errWrong
	}
	return vals, err
}

func ignoreErrors(ctx context.Context, keys []string, fn manyFunction) (map[string]string, error) {
	vals, err := fn(ctx, keys)
	if len(vals) > 0 {
		err = nil
	}
	return vals, err
}

func panicsAsErrors(m *mutant, ctx context.Context, keys []string, fn manyFunction) (_ manyResults, err error) {
	defer func() {
		if e, ok := recover().(*coalesce.PanicError); ok {
			err = e
		}
	}()
	return m.Group.DoMany(ctx, keys, fn)
}

func panicsWithoutStack(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	defer func() {
		if e, ok := recover().(*coalesce.PanicError); ok {
			panic(&coalesce.PanicError{Value: e.Value, Stack: bytes.Repeat([]byte("somewhere else\n"), 2)})
		}
	}()
	return m.Group.DoMany(ctx, keys, fn)
}

func panicsOfOthers(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	results, err := m.Group.DoMany(ctx, keys, fn)
	for _, r := range results {
		if e, ok := r.Err.(*coalesce.PanicError); ok {
			panic(e)
		}
	}
	return results, err
}

func survivesExit(ctx context.Context, keys []string, fn manyFunction) (vals map[string]string, err error) {
	ended := make(chan struct{})
	err = coalesce.ErrGoexit
	go func() {
		defer close(ended)
		vals, err = fn(ctx, keys)
	}()
	<-ended
	return vals, err
}

func manyIgnoreEnd(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	if ctx.Err() != nil {
		ctx = context.WithoutCancel(ctx)
	}
	return m.Group.DoMany(ctx, keys, fn)
}

func manyNoValues(ctx context.Context, keys []string, fn manyFunction) (map[string]string, error) {
	return fn(noValues{ctx}, keys)
}

// manyLeads says that every key was led.
func manyLeads(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	results, err := m.Group.DoMany(ctx, keys, fn)
	for key, r := range results {
		r.Role = coalesce.Leader
		results[key] = r
	}
	return results, err
}

// manyAlone has flights of its own.
func manyAlone(_ *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	return coalesce.Off[string]{}.DoMany(ctx, slices.Clone(keys), func(ctx context.Context, keys []string) (map[string]string, error) {
		slices.Reverse(keys)
		return fn(ctx, keys)
	})
}

// waitsWithItsFunction runs the function under flights that it ends together with those
// that it follows.
func waitsWithItsFunction(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	all := make(chan struct{})
	var rest manyResults
	results, err := m.Group.DoMany(ctx, keys, func(ctx context.Context, led []string) (map[string]string, error) {
		others := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return slices.Contains(led, key) })
		go func() {
			defer close(all)
			rest, _ = m.Group.DoMany(ctx, others, func(context.Context, []string) (map[string]string, error) { return nil, errWrong })
		}()
		vals, err := fn(ctx, led)
		<-all
		return vals, err
	})
	_ = rest
	return results, err
}

func manyStay(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	return m.Group.DoMany(context.WithoutCancel(ctx), keys, fn)
}

func manyCallersContext(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	return m.Group.DoMany(ctx, keys, func(_ context.Context, keys []string) (map[string]string, error) { return fn(ctx, keys) })
}

func manyNeverCancelled(ctx context.Context, keys []string, fn manyFunction) (map[string]string, error) {
	return fn(context.WithoutCancel(ctx), keys)
}

// manyHidesCancellations gives the keys' other callers the cancellation of a function that
// has abandoned them.
func manyHidesCancellations(ctx context.Context, keys []string, fn manyFunction) (map[string]string, error) {
	vals, err := fn(ctx, keys)
	var failed coalesce.BatchError
	if errors.As(err, &failed) {
		for key, err := range failed {
			if errors.Is(err, context.Canceled) {
				failed[key] = hidden{err}
			}
		}
	}
	return vals, err
}

// takesNothingOver calls its function once at most.
func takesNothingOver(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	ran := make(chan struct{}, 1)
	return m.Group.DoMany(ctx, keys, func(ctx context.Context, keys []string) (map[string]string, error) {
		select {
		case ran <- struct{}{}:
			return fn(ctx, keys)
		default:
			return nil, errWrong
		}
	})
}

func forgetsFirst(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	_ = m.Group.Forget(ctx, keys...)
	return m.Group.DoMany(ctx, keys, fn)
}

func aloneElsewhere(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error) {
	if m.replica > 0 {
		return coalesce.Off[string]{}.DoMany(ctx, keys, fn)
	}
	return m.Group.DoMany(ctx, keys, fn)
}

func losesErrors(r coalesce.Result[string]) (coalesce.Result[string], bool) {
	var remote *coalesce.RemoteError
	if errors.As(r.Err, &remote) {
		r.Err = errors.New(r.Err.Error())
	}
	return r, true
}
