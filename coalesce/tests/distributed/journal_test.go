package distributed_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// stamp is a result that says which execution made it, and when that ended.
type stamp struct {
	Run int64
	End time.Duration // since base
}

var base = time.Now()

// journal is what happened to the results of executions.
type journal struct {
	runs, lost atomic.Int64 // executions, and messages that were dropped

	mu       sync.Mutex
	returned map[int64]time.Duration           // since base, when the caller who led the execution had its result
	roles    map[coalesce.Role]int             // of callers
	lateness map[coalesce.Role][]time.Duration // of callers who came after the end
}

type caller struct {
	arrived time.Duration // since base
	result  stamp
	role    coalesce.Role
}

// TestNoCallerGetsAResultThatEndedBeforeItCame loses a quarter of the messages
// and holds up a quarter of the finishes. A result must not have ended longer before its
// caller came than MaxAge, on whatever replica and by whatever way it came. An execution
// has ended by the time that the caller who led it has the result.
func TestNoCallerGetsAResultThatEndedBeforeItCame(t *testing.T) {
	t.Parallel()
	for _, maxAge := range []time.Duration{0, 20 * time.Millisecond} {
		t.Run("MaxAge "+maxAge.String(), func(t *testing.T) {
			const replicas, callers = 3, 8
			calls := 100
			if testing.Short() {
				calls = 30
			}
			server := redisrig.Start(t)
			j := &journal{returned: map[int64]time.Duration{}, roles: map[coalesce.Role]int{}, lateness: map[coalesce.Role][]time.Duration{}}
			var groups []*replica[stamp]
			for range replicas {
				groups = append(groups, wiredGroup[stamp](j.tap(t, server), distributed.WithMaxAge(maxAge), distributed.WithLeaseTTL(100*time.Millisecond), distributed.WithMaxTakeovers(100)))
			}
			answers := make([][]caller, replicas*callers)
			var wg sync.WaitGroup
			for i := range answers {
				wg.Go(func() {
					for range calls {
						c, err := j.call(groups[i%replicas])
						if err != nil {
							t.Error(err)
							return
						}
						answers[i] = append(answers[i], c)
					}
				})
			}
			wg.Wait()
			for _, c := range slices.Concat(answers...) {
				j.check(t, c, maxAge)
			}
			j.report(t, maxAge)
		})
	}
}

// call calls for a random key, and records when who ran the function returned.
func (j *journal) call(group *replica[stamp]) (caller, error) {
	const keys = 3
	c := caller{arrived: time.Since(base)}
	var err error
	c.result, c.role, err = group.Do(context.Background(), "k"+strconv.Itoa(rand.IntN(keys)), func(context.Context) (stamp, error) {
		time.Sleep(rand.N(2 * time.Millisecond)) // the work
		return stamp{j.runs.Add(1), time.Since(base)}, nil
	})
	if err == nil && (c.role == coalesce.Leader || c.role == coalesce.Fallback) {
		j.mu.Lock()
		j.returned[c.result.Run] = time.Since(base)
		j.mu.Unlock()
	}
	return c, err
}

// report fails the test if it has tested nothing, and logs how late callers came.
func (j *journal) report(t *testing.T, maxAge time.Duration) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	lost := j.lost.Load()
	tested := j.roles[coalesce.RemoteFollower] > 0 && (maxAge == 0 && lost > 0 || len(j.lateness[coalesce.Cached]) > 0)
	if !tested {
		t.Errorf("nothing was tested: %d messages lost, roles %v", lost, j.roles)
	}
	t.Logf("%d executions, %d messages lost, roles %v", j.runs.Load(), lost, j.roles)
	for role, late := range j.lateness {
		slices.Sort(late)
		t.Logf("%v: %d callers came after the end, by %v (median), %v (p99), %v (most)", role, len(late), late[len(late)/2], late[len(late)*99/100], late[len(late)-1])
	}
}

// tap returns a replica's tap.
func (j *journal) tap(t *testing.T, server *redisrig.Server) *tap {
	return &tap{
		t: t, server: server,
		lose: func(frame []byte) bool {
			lose := !bytes.Contains(frame, []byte(":control:")) && rand.IntN(4) == 0
			if lose {
				j.lost.Add(1)
			}
			return lose
		},
		before: func(script string, _ []any) error {
			if script == "finish" && rand.IntN(4) == 0 {
				time.Sleep(rand.N(25 * time.Millisecond)) // on the network
			}
			return nil
		},
	}
}

// check wants all calls to have returned.
func (j *journal) check(t *testing.T, c caller, maxAge time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.roles[c.role]++
	if late := c.arrived - c.result.End; late > 0 {
		j.lateness[c.role] = append(j.lateness[c.role], late)
	}
	if late := c.arrived - j.returned[c.result.Run]; late > maxAge {
		t.Errorf("a caller (%v) came %v after who led execution %d had its result", c.role, late, c.result.Run)
	}
}
