package coalesce_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fleetcall/fleetcall/coalesce"
)

func TestRoleIsNamedAsInTheResponseHeader(t *testing.T) {
	for role, want := range map[coalesce.Role]string{
		0:                       "none",
		coalesce.Leader:         "leader",
		coalesce.LocalFollower:  "local-follower",
		coalesce.RemoteFollower: "remote-follower",
		coalesce.Fallback:       "fallback",
		coalesce.Cached:         "cached",
		200:                     "role(200)",
	} {
		if got := role.String(); got != want {
			t.Errorf("Role(%d) is %q, want %q", uint8(role), got, want)
		}
		if got := fmt.Sprint(role); got != want {
			t.Errorf("Role(%d) prints as %q, want %q", uint8(role), got, want)
		}
	}
}

func TestOffRunsTheFunctionOfEveryCallWithItsOwnContext(t *testing.T) {
	type name struct{}
	synctest.Test(t, func(t *testing.T) {
		var g coalesce.Group[string] = coalesce.Off[string]{}
		errQuery := errors.New("the query failed")
		const calls = 3
		running := 0
		release := make(chan struct{})
		for i := range calls {
			go func() {
				want := fmt.Sprint(i)
				ctx := context.WithValue(t.Context(), name{}, want)
				val, role, err := g.Do(ctx, "key", func(ctx context.Context) (string, error) {
					running++
					<-release
					return ctx.Value(name{}).(string), errQuery
				})
				if val != want || role != coalesce.Leader || err != errQuery {
					t.Errorf("call %d: Do = %q, %v, %v", i, val, role, err)
				}
			}()
			synctest.Wait()
			if running != i+1 {
				t.Fatalf("%d of %d functions run", running, i+1)
			}
		}
		if err := g.Forget(t.Context(), "key"); err != nil {
			t.Error(err)
		}
		close(release)
		synctest.Wait()
	})
}

// goesOff panics with value, and is looked for by name in stacks.
//
//go:noinline
func goesOff(value any) (string, error) { panic(value) }

func TestPanicIsAPanicErrorInOffAsInTheOtherTiers(t *testing.T) {
	first := &coalesce.PanicError{Value: "boom", Stack: []byte("the original stack")}
	for _, tt := range []struct {
		name  string
		value any
		check func(*coalesce.PanicError) bool
	}{
		{"a string", "boom", func(e *coalesce.PanicError) bool {
			return e.Value == "boom" && strings.Contains(string(e.Stack), "coalesce_test.goesOff")
		}},
		{"one that was caught before", first, func(e *coalesce.PanicError) bool { return e == first }},
		{"a nil *PanicError", (*coalesce.PanicError)(nil), func(e *coalesce.PanicError) bool {
			return e != nil && e.Value == (*coalesce.PanicError)(nil)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer func() {
				value := recover()
				if e, ok := value.(*coalesce.PanicError); !ok || !tt.check(e) {
					t.Errorf("Do panicked with %#v", value)
				}
			}()
			coalesce.Off[string]{}.Do(t.Context(), "key", func(context.Context) (string, error) { return goesOff(tt.value) })
		})
	}
}

func TestGoexitGoesOnThroughOff(t *testing.T) {
	exited := make(chan bool, 1)
	go func() {
		returned := false
		defer func() { exited <- !returned && recover() == nil }()
		coalesce.Off[string]{}.Do(t.Context(), "key", func(context.Context) (string, error) { runtime.Goexit(); return "", nil })
		returned = true
	}()
	if !<-exited {
		t.Error("the goroutine did not exit")
	}
}
