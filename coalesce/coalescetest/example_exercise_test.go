package coalescetest_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescetest"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// counted is a Group of one's own: it counts the calls of the one that it wraps.
type counted struct {
	coalesce.Group[string]
	calls *atomic.Int64
}

func (c counted) Do(ctx context.Context, key string, fn func(context.Context) (string, error)) (string, coalesce.Role, error) {
	c.calls.Add(1)
	return c.Group.Do(ctx, key, fn)
}

// A test of a Group of one's own: each promise of package coalesce is a subtest.
func ExampleExercise() {
	testCounted := func(t *testing.T) { // func TestCounted(t *testing.T), in a real test file
		coalescetest.Exercise(t, coalescetest.Harness{
			Merges: true,
			Replicas: func(*testing.T, int) []coalesce.Group[string] {
				return []coalesce.Group[string]{counted{local.Tier(new(local.Group[string, string])), new(atomic.Int64)}}
			},
		})
	}
	_ = testCounted // go test calls it
}
