package distributed_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/redis/go-redis/v9"
)

// tour is one user's way through all that the tier does. It ends when the user
// is refused something.
type tour struct {
	*guarded
	user string

	groups  []*replica[string] // all, with their clients
	clients []redis.UniversalClient
	a, b    *replica[string]
	kept    *replica[string] // keeps results
	brief   *replica[string] // has short leases

	problem atomic.Value // string; set by the step, or by a function that a Group still runs
}

func (r *tour) failed() string {
	problem, _ := r.problem.Load().(string)
	return problem
}

type stop struct{}

// step takes one step of a tour, which ends with the first one that fails.
func (r *tour) step(f func()) {
	if r.failed() == "" {
		r.steps.RLock()
		defer r.steps.RUnlock()
		defer stopped()
		f()
	}
}

// alone takes a step while no other user takes any.
func (r *tour) alone(f func()) {
	if r.failed() == "" {
		r.steps.Lock()
		defer r.steps.Unlock()
		defer stopped()
		f()
	}
}

func stopped() {
	if p := recover(); p != nil && p != any(stop{}) {
		panic(p)
	}
}

func (r *tour) fail(format string, args ...any) {
	r.problem.CompareAndSwap(nil, fmt.Sprintf(format, args...))
	panic(stop{})
}

// until waits for what comes unless the user is refused something.
func (r *tour) until(what string, ok func() bool) {
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if denied := r.denied(r.user); len(denied) > 0 {
			r.fail("%s: refused %q", what, denied)
		}
		if time.Now().After(deadline) {
			r.fail("%s: did not happen", what)
		}
	}
}

func (r *tour) want(what string, got answer[string], role coalesce.Role, val string) {
	if got.err != nil || got.val != val || got.role != role {
		r.fail("%s: %+v, want %s as %v", what, got, val, role)
	}
}

func (r *tour) do(g *replica[string], key, val string) answer[string] {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var a answer[string]
	a.val, a.role, a.err = g.Do(ctx, key, func(context.Context) (string, error) { return val, nil })
	return a
}

func (r *tour) joined(key string) bool {
	return strings.HasPrefix(r.admin.Get(context.Background(), r.user+":test:{"+key+"}:lease").Val(), "1")
}

// flight has one group lead, and another follow. The function runs when it is
// followed.
func (r *tour) flight(leader, follower *replica[string], key string, fn func() (string, error)) (led, followed answer[string]) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	started, release := make(chan struct{}), make(chan struct{})
	var calls sync.WaitGroup
	answered := make(chan struct{})
	calls.Go(func() {
		led.val, led.role, led.err = leader.Do(ctx, key, func(context.Context) (string, error) {
			defer stopped()
			close(started)
			<-release
			return fn()
		})
	})
	unlocked := sync.OnceFunc(func() { close(release) })
	defer calls.Wait()
	defer cancel()
	defer unlocked()
	r.until(key+" is led", func() bool { return closed(started) })
	calls.Go(func() {
		followed.val, followed.role, followed.err = follower.Do(ctx, key, func(context.Context) (string, error) { return "its own", nil })
	})
	r.until(key+" is joined", func() bool { return r.joined(key) })
	time.Sleep(onItsWay)
	unlocked()
	go func() {
		defer close(answered)
		calls.Wait()
	}()
	r.until(key+" is answered", func() bool { return closed(answered) })
	return led, followed
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
