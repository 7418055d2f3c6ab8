package coalescetest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescetest"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOffKeepsItsPromises(t *testing.T) {
	coalescetest.Exercise(t, coalescetest.Harness{
		Replicas: func(*testing.T, int) []coalesce.Group[string] {
			return []coalesce.Group[string]{coalesce.Off[string]{}}
		},
	})
}

func TestLocalTierKeepsItsPromises(t *testing.T) {
	coalescetest.Exercise(t, coalescetest.Harness{
		Merges: true,
		Replicas: func(*testing.T, int) []coalesce.Group[string] {
			return []coalesce.Group[string]{local.Tier(new(local.Group[string, string]))}
		},
	})
}

func newReplicas(_ *testing.T, n int) []coalesce.Group[string] {
	fleet := coalescetest.NewFleet()
	groups := make([]coalesce.Group[string], n)
	for i := range groups {
		groups[i] = coalescetest.NewGroup[string](fleet, "exercise")
	}
	return groups
}

func TestFleetWithoutARedisKeepsItsPromises(t *testing.T) {
	coalescetest.Exercise(t, coalescetest.Harness{Merges: true, Fleet: true, Replicas: newReplicas})
}

// TestExerciseWorksOutsideOfABubble is for Groups that use a network, which must
// say how many callers wait.
func TestExerciseWorksOutsideOfABubble(t *testing.T) {
	coalescetest.Exercise(t, coalescetest.Harness{
		Merges: true, Fleet: true, Replicas: newReplicas,
		Waiting: func(g coalesce.Group[string]) int { return g.(*coalescetest.Group[string]).Waiting() },
	})
}

func TestLocalTierKeepsItsPromisesOutsideOfABubble(t *testing.T) {
	var group *local.Group[string, string]
	coalescetest.Exercise(t, coalescetest.Harness{
		Merges: true,
		Replicas: func(*testing.T, int) []coalesce.Group[string] {
			group = new(local.Group[string, string])
			return []coalesce.Group[string]{local.Tier(group)}
		},
		Waiting: func(coalesce.Group[string]) int { return int(group.Stats().Waiting) },
	})
}
