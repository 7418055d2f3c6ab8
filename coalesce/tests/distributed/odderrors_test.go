package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// selfWrapping is an error from which errors.Is never comes back.
type selfWrapping struct{}

func (*selfWrapping) Error() string   { return "self" }
func (e *selfWrapping) Unwrap() error { return e }

// isPanics is an error that errors.Is cannot ask.
type isPanics struct{}

func (isPanics) Error() string { return "is" }
func (isPanics) Is(error) bool { panic("Is") }

// failTogether has three callers of one replica wait for a flight that fails so. It
// returns what they got, and how often the function ran.
func failTogether(t *testing.T, fails error) (got []answer[string], runs int32) {
	t.Helper()
	g := newGroup[string](t, openFleet(t, redisrig.Start(t)), "g")
	release := make(chan struct{})
	var ran atomic.Int32
	var callers []<-chan answer[string]
	for range 3 {
		callers = append(callers, calling(context.Background(), g, "k", func(context.Context) (string, error) {
			ran.Add(1)
			<-release
			return "", fails
		}))
	}
	eventually(t, "all wait", func() bool { return g.Stats().Local.Waiting == 3 })
	close(release)
	for i, caller := range callers {
		got = append(got, comesBack(t, fmt.Sprint("caller ", i), caller))
	}
	return got, ran.Load()
}

// TestAnErrorThatCannotBeExaminedReachesAllCallersOfItsReplica has errors whose methods
// do not return, or panic.
func TestAnErrorThatCannotBeExaminedReachesAllCallersOfItsReplica(t *testing.T) {
	for name, fails := range map[string]error{"it wraps itself": &selfWrapping{}, "its Is panics": isPanics{}} {
		t.Run(name, func(t *testing.T) {
			got, runs := failTogether(t, fails)
			for _, a := range got {
				if a.err == nil || a.err.Error() != fails.Error() {
					t.Errorf("a caller has %v as %v", a.err, a.role)
				}
			}
			if runs != 1 {
				t.Errorf("%d executions", runs)
			}
		})
	}
}

// TestAnUnavailableRedisOfTheFunctionsOwnIsAnErrorLikeAnyOther has a function that uses
// another Group, which fails closed. This one can use Redis.
func TestAnUnavailableRedisOfTheFunctionsOwnIsAnErrorLikeAnyOther(t *testing.T) {
	got, runs := failTogether(t, fmt.Errorf("inner: %w", coalesce.ErrUnavailable))
	for _, a := range got {
		if !errors.Is(a.err, coalesce.ErrUnavailable) || a.role != coalesce.Leader && a.role != coalesce.LocalFollower {
			t.Errorf("a caller has %v as %v", a.err, a.role)
		}
	}
	if runs != 1 {
		t.Errorf("%d executions", runs)
	}
}
