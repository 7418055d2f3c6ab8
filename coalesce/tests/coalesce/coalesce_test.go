package coalesce_test

import (
	"context"
	"errors"
	"fmt"
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
