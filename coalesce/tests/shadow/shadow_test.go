package shadow_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescetest"
	"github.com/fleetcall/fleetcall/coalesce/shadow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is a time that no stall of a busy machine reaches.
const patience = 2 * time.Minute

// open opens a replica's part, and closes it with the test.
func open(t *testing.T, client redis.UniversalClient, opts ...shadow.Option) (*shadow.Fleet, *shadow.Group[string]) {
	t.Helper()
	fleet, err := shadow.Open(client, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := fleet.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	group, err := shadow.NewGroup[string](fleet, "products")
	if err != nil {
		t.Fatal(err)
	}
	return fleet, group
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not %s after %v", what, patience)
		}
	}
}

// A program cannot tell a Group in shadow from coalesce.Off.
func TestAGroupInShadowKeepsThePromisesOfOff(t *testing.T) {
	coalescetest.Exercise(t, coalescetest.Harness{
		Replicas: func(t *testing.T, _ int) []coalesce.Group[string] {
			_, group := open(t, nil)
			return []coalesce.Group[string]{group}
		},
	})
}

func TestAFleetWithoutRedisKnowsWhatLocalWouldSave(t *testing.T) {
	fleet, group := open(t, nil)
	inside := make(chan struct{})
	release := make(chan struct{})
	done := make(chan error, 2)
	for range 2 {
		go func() {
			_, _, err := group.Do(context.Background(), "key", func(context.Context) (string, error) {
				inside <- struct{}{}
				<-release
				return "", nil
			})
			done <- err
		}()
	}
	<-inside
	<-inside
	close(release)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if st := group.Stats(); st.Requests != 2 || st.Local.Executions != 1 || st.Covered != 0 {
		t.Errorf("%+v", st)
	}
	fleet.ResetStats()
	if st := fleet.Stats().Groups["products"]; st.Requests != 0 || st.Local.Executions != 0 {
		t.Errorf("after a reset: %+v", st)
	}
	if st := fleet.Totals().Groups["products"]; st.Requests != 2 || st.Local.Executions != 1 {
		t.Errorf("a reset has changed the totals: %+v", st)
	}
}

func TestWhatCannotBeIsRefused(t *testing.T) {
	for name, try := range map[string]func() error{
		"option 1 is nil": func() error { _, err := shadow.Open(nil, nil); return err },
		"WithSample":      func() error { _, err := shadow.Open(nil, shadow.WithSample(0)); return err },
		"WithFullBelow":   func() error { _, err := shadow.Open(nil, shadow.WithFullBelow(-1)); return err },
		"WithMaxAge":      func() error { _, err := shadow.Open(nil, shadow.WithMaxAge(-1)); return err },
		"WithNamespace":   func() error { _, err := shadow.Open(nil, shadow.WithNamespace("{}")); return err },
		"redis.Ring": func() error {
			ring := redis.NewRing(&redis.RingOptions{})
			defer func() { _ = ring.Close() }()
			_, err := shadow.Open(ring)
			return err
		},
		"*redis.Client":        func() error { _, err := shadow.Open((*redis.Client)(nil)); return err },
		"the Fleet is nil":     func() error { _, err := shadow.NewGroup[int](nil, "products"); return err },
		"\"products\" already": func() error { f, _ := open(t, nil); _, err := shadow.NewGroup[int](f, "products"); return err },
	} {
		if err := try(); err == nil || !strings.Contains(err.Error(), name) || !strings.HasPrefix(err.Error(), "fleetcall: shadow.") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
