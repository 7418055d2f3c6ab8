package heat

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"testing"
	"time"
)

// beside returns the commands and executions of a fleet as shares of another's.
func beside(t *testing.T, what string, f, other *fleet) (commands, executions float64) {
	t.Helper()
	commands = float64(f.commands) / float64(other.commands)
	executions = float64(f.executions) / float64(other.executions)
	t.Logf("%s: %.3f of the commands, %.4f of the executions, %d notices", what, commands, executions, f.notices)
	return commands, executions
}

const takes = 20 * time.Millisecond

// Up to 1,000 calls a second, a fifth of the commands and 1.02 of the executions hold together.
// Beyond that so many keys are shared that they do not: of what is known in advance, how often
// each key is called, no choice of keys makes much more of it.
func TestOnlyKeysThatAreSharedAreAskedFor(t *testing.T) {
	for _, rate := range []float64{300, 1000, 2000, 5000, 10_000} {
		t.Run(fmt.Sprintf("%v calls a second", rate), func(t *testing.T) {
			t.Parallel()
			rates := zipf(100_000, rate)
			load := func() iter.Seq[call] {
				return poisson(rates, time.Duration(100_000/rate*float64(time.Second)), evenly(3))
			}
			all := distributed(3, takes).run(load())
			commands, executions := beside(t, "adaptive", adaptive(3, takes).run(load()), all)
			if executions > 1.025 || rate <= 1000 && (commands > 0.2 || executions > 1.02) {
				t.Error("too many")
			}
			if rate == 10_000 {
				beside(t, "with all rates known, and asked if a flight meets 0.3 calls", oracle(3, takes, rates, 0.3).run(load()), all)
			}
		})
	}
}

func TestExecutionsStayFewInFleetsOfAnySize(t *testing.T) {
	for _, replicas := range []int{2, 10, 50} {
		load := func() iter.Seq[call] {
			return poisson(zipf(100_000, 1000), 60*time.Second, evenly(replicas))
		}
		commands, executions := beside(t, fmt.Sprintf("%d replicas", replicas), adaptive(replicas, takes).run(load()), distributed(replicas, takes).run(load()))
		if commands > 0.5 || executions > 1.02 {
			t.Errorf("%d replicas: too many", replicas)
		}
	}
}

func TestExecutionsStayFewWhateverFunctionsTake(t *testing.T) {
	for _, takes := range []time.Duration{time.Millisecond, 100 * time.Millisecond, time.Second} {
		load := func() iter.Seq[call] { return poisson(zipf(100_000, 300), 100*time.Second, evenly(3)) }
		commands, executions := beside(t, takes.String(), adaptive(3, takes).run(load()), distributed(3, takes).run(load()))
		if commands > 0.4 || executions > 1.02 {
			t.Errorf("%v: too many", takes)
		}
	}
}

func TestKeysThatABalancerSendsToOneReplicaAreNotAskedForThoughTheyAreHot(t *testing.T) {
	load := func() iter.Seq[call] { return poisson(zipf(100_000, 1000), 60*time.Second, pinned(3)) }
	commands, executions := beside(t, "pinned", adaptive(3, takes).run(load()), distributed(3, takes).run(load()))
	if commands > 0.05 || executions != 1 {
		t.Error("too many")
	}
}

func TestAKeyThatIsHotOnOneReplicaIsAskedForByAll(t *testing.T) {
	mostly := func(r *rand.Rand, _ int) int { return max(0, r.IntN(20)-17) } // 18 of 20 to the first
	load := func() iter.Seq[call] { return poisson(zipf(100_000, 1000), 60*time.Second, mostly) }
	commands, executions := beside(t, "18, 1 and 1 of 20 calls", adaptive(3, takes).run(load()), distributed(3, takes).run(load()))
	if commands > 0.2 || executions > 1.02 {
		t.Error("too many")
	}
}

func TestKeysThatComeOnceCostNothing(t *testing.T) {
	load := func(yield func(call) bool) {
		for i := range 100_000 {
			if !yield(call{time.Duration(i) * time.Millisecond, i % 3, i}) {
				return
			}
		}
	}
	if f := adaptive(3, takes).run(load); f.commands != 0 || f.executions != 100_000 {
		t.Errorf("%d commands, %d executions", f.commands, f.executions)
	}
}

func TestKeysThatComeAgainAndNeverMeetCostAFiftiethOfACommandEach(t *testing.T) {
	load := func(yield func(call) bool) {
		for i := range 1_000_000 {
			if !yield(call{time.Duration(i) * time.Millisecond, i / 3000 % 3, i % 3000}) {
				return
			}
		}
	}
	f := adaptive(3, takes).run(load)
	each := float64(f.commands) / float64(f.executions)
	t.Logf("%.4f commands a flight", each)
	if each > 0.022 { // 0.02 and chance
		t.Error("too many")
	}
}

// Two replicas call each key at the same moment, once a second or less often. Nothing that a
// replica sees by itself tells that.
func TestWhatMeetsOnceASecondIsFoundByTheSample(t *testing.T) {
	const periods, keys = 3000, 20
	for _, every := range []time.Duration{time.Second, 10 * time.Second} {
		load := func(yield func(call) bool) {
			for i := range periods * 2 * keys {
				at := time.Duration(i/(2*keys))*every + time.Duration(i%(2*keys))*100*time.Microsecond
				if !yield(call{at, i % 2, i % (2 * keys) / 2}) {
					return
				}
			}
		}
		f := adaptive(3, takes).run(load)
		late := float64(f.executions-periods*keys) / keys
		t.Logf("every %v: a key is found after %.0f times", every, late)
		if late > 1.5*sampledOneIn {
			t.Errorf("every %v: a key is found after %.0f times", every, late)
		}
	}
}

func TestACrowdForAColdKeyRunsOnceAReplicaAndThenOnce(t *testing.T) {
	for _, callers := range []int{2, 3, 100} { // on each replica
		load := func(yield func(call) bool) {
			for i := range 5 * 3 * callers {
				if !yield(call{time.Duration(i/(3*callers))*time.Second + time.Duration(i%(3*callers))*10*time.Microsecond, i % 3, 1}) {
					return
				}
			}
		}
		f := adaptive(3, takes).run(load)
		waves := make([]int, 5)
		for _, at := range f.began {
			waves[at/time.Second]++
		}
		if fmt.Sprint(waves) != "[3 1 1 1 1]" {
			t.Errorf("%d callers on each replica: executions of each crowd %v", callers, waves)
		}
	}
}
