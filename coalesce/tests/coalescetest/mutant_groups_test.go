package coalescetest_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

type function = func(context.Context) (string, error)

// mutant is a right Group with one thing wrong.
type mutant struct {
	coalesce.Group[string]
	replica int
	shared  *sync.Map // of the fleet

	many   func(m *mutant, ctx context.Context, keys []string, fn manyFunction) (manyResults, error)
	do     func(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error)
	forget func(m *mutant, ctx context.Context, keys ...string) error
}

func (m *mutant) Do(ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
	if m.do == nil {
		return m.Group.Do(ctx, key, fn)
	}
	return m.do(m, ctx, key, fn)
}

func (m *mutant) Forget(ctx context.Context, keys ...string) error {
	if m.forget == nil {
		return m.Group.Forget(ctx, keys...)
	}
	return m.forget(m, ctx, keys...)
}

// calls makes a mutant by what is wrong with Do.
func calls(do func(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error)) mutant {
	return mutant{do: do}
}

// runs makes a mutant by what is wrong with how it runs functions.
func runs(wrong func(caller, flight context.Context, fn function) (string, error)) mutant {
	return calls(func(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
		return m.Group.Do(ctx, key, func(flight context.Context) (string, error) { return wrong(ctx, flight, fn) })
	})
}

// returns makes a mutant by what is wrong with what it returns.
func returns(wrong func(val string, role coalesce.Role, err error) (string, coalesce.Role, error)) mutant {
	return calls(func(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
		return wrong(m.Group.Do(ctx, key, fn))
	})
}

// calling makes a mutant by what is wrong with the key it calls for.
func calling(wrong func(key string) string) mutant {
	return calls(func(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
		return m.Group.Do(ctx, wrong(key), fn)
	})
}

// panics makes a mutant by what is wrong with its panics.
func panics(wrong func(e *coalesce.PanicError, ran bool) error) mutant {
	return calls(func(m *mutant, ctx context.Context, key string, fn function) (val string, role coalesce.Role, err error) {
		ran := false
		defer func() {
			if e, ok := recover().(*coalesce.PanicError); ok {
				err = wrong(e, ran)
			}
		}()
		return m.Group.Do(ctx, key, func(ctx context.Context) (string, error) {
			ran = true
			return fn(ctx)
		})
	})
}

// forgets makes a mutant by what is wrong with Forget.
func forgets(wrong func(m *mutant, ctx context.Context, keys ...string) error) mutant {
	return mutant{forget: wrong}
}

// caches keeps what the calls return for which keep says so.
func caches(keep func(coalesce.Role) bool) mutant {
	return calls(func(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
		if kept, ok := m.shared.Load(key); ok {
			return kept.(string), coalesce.RemoteFollower, nil
		}
		val, role, err := m.Group.Do(ctx, key, fn)
		if err == nil && keep(role) {
			m.shared.Store(key, val)
		}
		return val, role, err
	})
}

// hidden is a cancellation that the Group below does not recognise.
type hidden struct{ err error }

func (hidden) Error() string { return "hidden" }

// handsOutCancellations gives followers the cancellation of a function that has
// abandoned its flight.
func handsOutCancellations(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
	val, role, err := m.Group.Do(ctx, key, func(ctx context.Context) (string, error) {
		val, err := fn(ctx)
		if errors.Is(err, context.Canceled) {
			err = hidden{err}
		}
		return val, err
	})
	if h, ok := err.(hidden); ok {
		err = h.err
	}
	return val, role, err
}

// oneAtATime has a single place for all keys.
func oneAtATime() mutant {
	var place chan struct{}
	var once sync.Once
	return calls(func(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
		once.Do(func() { place = make(chan struct{}, 1) })
		select {
		case place <- struct{}{}:
			defer func() { <-place }()
		case <-ctx.Done():
			return "", 0, ctx.Err()
		}
		return m.Group.Do(ctx, key, fn)
	})
}

// joinsCancelled has callers join a function that still runs after everyone has
// left it.
func joinsCancelled(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
	type running struct {
		done chan struct{}
		val  string
	}
	if r, ok := m.shared.Load(key); ok {
		select {
		case <-r.(*running).done:
			return r.(*running).val, coalesce.LocalFollower, nil
		case <-ctx.Done():
			return "", coalesce.LocalFollower, ctx.Err()
		}
	}
	return m.Group.Do(ctx, key, func(ctx context.Context) (string, error) {
		r := &running{done: make(chan struct{})}
		m.shared.Store(key, r)
		defer m.shared.Delete(key)
		defer close(r.done)
		val, err := fn(ctx)
		r.val = val
		return val, err
	})
}

// latestValues shows a function the values of the caller that came last.
func latestValues() mutant {
	var latest atomic.Value
	return calls(func(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
		latest.Store(holder{ctx})
		return m.Group.Do(ctx, key, func(ctx context.Context) (string, error) { return fn(lookingAt{ctx, &latest}) })
	})
}

type holder struct{ context.Context }

type lookingAt struct {
	context.Context
	latest *atomic.Value
}

func (l lookingAt) Value(key any) any { return l.latest.Load().(holder).Value(key) }

// noValues is a context without values.
type noValues struct{ context.Context }

func (noValues) Value(any) any { return nil }

// ownCalls runs the caller's own function when the result it got is such.
func ownCalls(when func(role coalesce.Role, err error) bool) mutant {
	return calls(func(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
		val, role, err := m.Group.Do(ctx, key, fn)
		if err != nil && ctx.Err() == nil && when(role, err) {
			val, err = fn(ctx)
		}
		return val, role, err
	})
}

// remoteErrors makes a mutant by what is wrong with errors of other replicas.
func remoteErrors(wrong func(err error) error) mutant {
	return returns(func(val string, role coalesce.Role, err error) (string, coalesce.Role, error) {
		var remote *coalesce.RemoteError
		if errors.As(err, &remote) {
			err = wrong(err)
		}
		return val, role, err
	})
}

// forgetsAtTheEnd forgets the key when a flight of it ends, also a newer flight.
func forgetsAtTheEnd(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
	defer m.Group.Forget(ctx, key)
	return m.Group.Do(ctx, key, fn)
}

// forgetsAll stands on a local.Group, which can.
func forgetsAll() mutant {
	group := new(local.Group[string, string])
	return mutant{
		do: func(_ *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
			return group.Do(ctx, key, fn)
		},
		forget: func(*mutant, context.Context, ...string) error {
			group.ForgetAll()
			return nil
		},
	}
}

func withoutStack(e *coalesce.PanicError, _ bool) error {
	panic(&coalesce.PanicError{Value: e.Value, Stack: bytes.Repeat([]byte("somewhere else\n"), 2)})
}

func untilBrace(key string) string {
	if i := strings.IndexByte(key, '}'); i > 0 {
		return key[:i]
	}
	return key
}

// silent is an error without a message.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

// elsewhere cuts keys off on other replicas than the first.
func elsewhere(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
	if m.replica > 0 {
		key = untilBrace(key)
	}
	return m.Group.Do(ctx, key, fn)
}

func localRoles(v string, role coalesce.Role, err error) (string, coalesce.Role, error) {
	if role == coalesce.RemoteFollower {
		role = coalesce.LocalFollower
	}
	return v, role, err
}

func noRoleWithError(v string, role coalesce.Role, err error) (string, coalesce.Role, error) {
	if err != nil {
		role = 0
	}
	return v, role, err
}

func errorUnlessRan(e *coalesce.PanicError, ran bool) error {
	if ran {
		panic(e)
	}
	return e
}

func exitAsError(_, flight context.Context, fn function) (val string, err error) {
	ended := make(chan struct{})
	returned := false
	go func() {
		defer close(ended)
		val, err = fn(flight)
		returned = true
	}()
	<-ended
	if !returned {
		err = coalesce.ErrGoexit
	}
	return val, err
}

func refuseNil(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
	if fn == nil {
		return "", 0, errWrong
	}
	return m.Group.Do(ctx, key, fn)
}

func ignoreEnd(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
	if ctx.Err() != nil {
		ctx = context.WithoutCancel(ctx)
	}
	return m.Group.Do(ctx, key, fn)
}

func returnCause(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
	val, role, err := m.Group.Do(ctx, key, fn)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return val, role, err
}

func keepCallers(m *mutant, ctx context.Context, key string, fn function) (string, coalesce.Role, error) {
	return m.Group.Do(context.WithoutCancel(ctx), key, fn)
}

func forgetFirst(m *mutant, ctx context.Context, keys ...string) error {
	return m.Group.Forget(ctx, keys[:min(len(keys), 1)]...)
}
