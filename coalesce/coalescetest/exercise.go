package coalescetest

import (
	"testing"
	"testing/synctest"

	"github.com/fleetcall/fleetcall/coalesce"
)

// Harness says how Exercise gets at the Groups under test, and what they promise.
type Harness struct {
	// Replicas returns the Groups of the n replicas of a fleet of their own, on
	// which nobody has called yet, and releases them by t.Cleanup. It is called
	// at most once in each subtest. n is 1 unless Fleet is set.
	Replicas func(t *testing.T, n int) []coalesce.Group[string]

	// Merges says that calls for one key that overlap on one Group share one
	// execution. Of the tiers of fleetcall, only coalesce.Off has it unset.
	Merges bool

	// Fleet says that calls on different replicas share it too. Merges must be
	// set.
	Fleet bool

	// Waiting is how the suite makes certain that calls overlap: it returns how
	// many callers wait on a Group that Replicas returned, those included whose
	// function runs. A caller counts from when it belongs to a flight, so that it
	// gets that flight's result even if the function returns right then. On
	// another replica than the leader's, that is when the replica has joined the
	// flight, not when it has set out to. A caller that has left or returned
	// does not count. A caller of DoMany counts once for each of its keys. The suite asks again and again until the number is what it
	// should be, for a few seconds.
	//
	// Leave it nil for Groups that live in one process and use no network: each
	// subtest then runs in a bubble of testing/synctest, which knows when every
	// goroutine waits. Replicas is called inside the bubble. There, a goroutine
	// that has to wait for a sync.Mutex counts as busy: a Group that keeps one
	// locked while a function runs hangs until the time of go test is over.
	Waiting func(g coalesce.Group[string]) int
}

// Exercise checks that Groups keep what package coalesce promises, each promise in
// a subtest that is named after it. A Group of your own passes when a program
// cannot tell it from those of fleetcall.
//
// Each promise is checked with callers whose contexts can end, and again with
// callers whose contexts never end, because a Group may go another way for those.
//
// Functions under test return when the suite tells them to. Nothing depends on how
// fast anything is: a check waits for an event, and fails when that has not come
// after ten seconds.
func Exercise(t *testing.T, h Harness) {
	t.Helper()
	if h.Replicas == nil || h.Fleet && !h.Merges {
		t.Fatal("fleetcall: coalescetest: Exercise needs a Harness with Replicas, and with Merges where Fleet is set")
	}
	coalesce.RegisterError("fleetcall/coalescetest.errRegistered", errRegistered)
	t.Run("contexts that can end", func(t *testing.T) { exerciseAll(t, h, false) })
	t.Run("contexts that never end", func(t *testing.T) { exerciseAll(t, h, true) })
}

// behaviour is one promise.
type behaviour struct {
	name  string
	check func(*exercise)
	// leaving needs callers whose contexts can end.
	leaving bool
}

func exerciseAll(t *testing.T, h Harness, forever bool) {
	chapters := [][]behaviour{callBehaviours, keyBehaviours, manyBehaviours}
	if h.Merges {
		chapters = append(chapters, mergeBehaviours, leaveBehaviours, forgetBehaviours, manyMergeBehaviours, manyLeaveBehaviours)
	} else {
		chapters = append(chapters, separateBehaviours)
	}
	if h.Merges && !h.Fleet {
		chapters = append(chapters, manyProcessBehaviours)
	}
	if h.Fleet {
		chapters = append(chapters, fleetBehaviours, fleetErrorBehaviours, fleetLeaveBehaviours, manyFleetBehaviours)
	}
	for _, chapter := range chapters {
		for _, b := range chapter {
			if !b.leaving || !forever {
				t.Run(b.name, func(t *testing.T) { exerciseOne(t, h, forever, b.check) })
			}
		}
	}
}

func exerciseOne(t *testing.T, h Harness, forever bool, check func(*exercise)) {
	run := func(t *testing.T) {
		check(&exercise{T: t, h: h, forever: forever, over: make(chan struct{})})
	}
	if h.Waiting == nil {
		synctest.Test(t, run)
	} else {
		run(t)
	}
}
