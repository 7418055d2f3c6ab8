package distributed_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
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

var (
	base         = time.Now()
	stampPattern = regexp.MustCompile(`{"Run":(\d+),"End":(\d+)}`)
)

// stampIn returns the stamp in what was sent or received, or zeros.
func stampIn(sent any) (run int64, end time.Duration) {
	m := stampPattern.FindStringSubmatch(fmt.Sprintf("%s", sent))
	if m == nil {
		return 0, 0
	}
	run, _ = strconv.ParseInt(m[1], 10, 64)
	nanos, _ := strconv.ParseInt(m[2], 10, 64)
	return run, time.Duration(nanos)
}

// journal is what happened to the results of executions.
type journal struct {
	runs, lost atomic.Int64 // executions, and messages that were dropped

	mu        sync.Mutex
	ran       map[int64]int              // which replica ran it
	told      map[int64]time.Duration    // from its end until its replica had it, to send it to Redis
	asked     map[journey]time.Duration  // since base, when the peek was sent that brought it
	delivered map[journey]bool           // its message has arrived
	returned  map[journey]time.Duration  // since base, when the caller who led the local flight had it
	roles     map[coalesce.Role]int      // of callers
	lateness  map[string][]time.Duration // by path, of callers who came after the end
}

// journey is one result's way to one replica.
type journey struct {
	replica int
	run     int64
}

type caller struct {
	arrived time.Duration // since base
	result  stamp
	role    coalesce.Role
}

// TestNoCallerGetsAResultThatEndedBeforeItCame loses a quarter of the messages
// and holds up a quarter of the finishes. It tells by what way a caller got its
// result:
//
//   - own: its replica ran the function, or the message brought the result. It
//     may have come after the function's end, by the one delivery that is
//     promised, but not after the caller who led it here had the result.
//   - fetched: the message did not come, a peek's or a join's reply had the
//     result. It must not have come later after the end than MaxAge, give or
//     take what its replica cannot know: the time until the leader's had taken
//     note of the end, and that of the peek's reply.
func TestNoCallerGetsAResultThatEndedBeforeItCame(t *testing.T) {
	for _, maxAge := range []time.Duration{0, 20 * time.Millisecond} {
		t.Run("MaxAge "+maxAge.String(), func(t *testing.T) {
			const replicas, callers = 3, 8
			calls := 100
			if testing.Short() {
				calls = 30
			}
			server := redisrig.Start(t)
			j := &journal{
				ran: map[int64]int{}, told: map[int64]time.Duration{}, asked: map[journey]time.Duration{},
				delivered: map[journey]bool{}, returned: map[journey]time.Duration{},
				roles: map[coalesce.Role]int{}, lateness: map[string][]time.Duration{},
			}
			var groups []*replica[stamp]
			for r := range replicas {
				w := j.tap(t, server, r)
				groups = append(groups, wiredGroup[stamp](w, distributed.WithMaxAge(maxAge), distributed.WithLeaseTTL(100*time.Millisecond), distributed.WithMaxTakeovers(100)))
			}
			answers := make([][]caller, replicas*callers)
			var wg sync.WaitGroup
			for i := range answers {
				wg.Go(func() {
					for range calls {
						c, err := j.call(groups[i%replicas], i%replicas)
						if err != nil {
							t.Error(err)
							return
						}
						answers[i] = append(answers[i], c)
					}
				})
			}
			wg.Wait()
			for i, of := range answers {
				for _, c := range of {
					j.check(t, i%replicas, c, maxAge)
				}
			}
			j.report(t, maxAge)
		})
	}
}

// call calls for a random key on a replica, and records when the call returned.
func (j *journal) call(group *replica[stamp], replica int) (caller, error) {
	const keys = 3
	c := caller{arrived: time.Since(base)}
	var err error
	c.result, c.role, err = group.Do(context.Background(), "k"+strconv.Itoa(rand.IntN(keys)), func(context.Context) (stamp, error) {
		run := j.runs.Add(1)
		j.mu.Lock()
		j.ran[run] = replica
		j.mu.Unlock()
		time.Sleep(rand.N(2 * time.Millisecond)) // the work
		return stamp{run, time.Since(base)}, nil
	})
	if err == nil && c.role != coalesce.LocalFollower && c.role != coalesce.Cached {
		j.mu.Lock()
		j.returned[journey{replica, c.result.Run}] = time.Since(base)
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
	tested := lost > 0 && (len(j.lateness["fetched"]) > 0 || maxAge == 0) && j.roles[coalesce.RemoteFollower] > 0
	if !tested {
		t.Errorf("nothing was tested: %d messages lost, roles %v", lost, j.roles)
	}
	t.Logf("%d executions, %d messages lost, roles %v", j.runs.Load(), lost, j.roles)
	for path, late := range j.lateness {
		slices.Sort(late)
		t.Logf("%s: %d callers came after the end, by %v (median), %v (p99), %v (most)", path, len(late), late[len(late)/2], late[len(late)*99/100], late[len(late)-1])
	}
}

// tap returns the replica's tap, which writes into the journal.
func (j *journal) tap(t *testing.T, server *redisrig.Server, replica int) *tap {
	return &tap{
		t: t, server: server,
		lose: func(frame []byte) bool {
			if bytes.Contains(frame, []byte(":control\r\n")) {
				return false
			}
			if rand.IntN(4) == 0 {
				j.lost.Add(1)
				return true
			}
			if run, _ := stampIn(frame); run > 0 {
				j.mu.Lock()
				j.delivered[journey{replica, run}] = true
				j.mu.Unlock()
			}
			return false
		},
		before: func(script string, args []any) error {
			if script != "finish" {
				return nil
			}
			if rand.IntN(4) == 0 {
				time.Sleep(rand.N(25 * time.Millisecond)) // on the network
			}
			return nil
		},
		after: func(script string, args []any, reply any, took time.Duration) {
			j.mu.Lock()
			defer j.mu.Unlock()
			if run, end := stampIn(args); script == "finish" {
				j.told[run] = time.Since(base) - end
			}
			if run, _ := stampIn(reply); script == "peek" && run > 0 {
				j.asked[journey{replica, run}] = time.Since(base) - took
			}
		},
	}
}

// check wants all calls to have returned.
func (j *journal) check(t *testing.T, replica int, c caller, maxAge time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.roles[c.role]++
	way := journey{replica, c.result.Run}
	late := c.arrived - c.result.End
	if (j.ran[way.run] == replica || j.delivered[way]) && c.arrived <= j.returned[way] {
		if late > 0 {
			j.lateness["own"] = append(j.lateness["own"], late)
		}
		return
	}
	if late > 0 {
		j.lateness["fetched"] = append(j.lateness["fetched"], late)
	}
	limit := maxAge + j.told[way.run]
	if asked, peeked := j.asked[way]; peeked {
		limit += max(0, j.returned[way]-asked)
	}
	if late > limit {
		t.Errorf("replica %d: a caller (%v) came %v after the end of flight %d of replica %d, and %v after who led it here had its result; its message delivered: %v; %v is allowed",
			replica, c.role, late, way.run, j.ran[way.run], c.arrived-j.returned[way], j.delivered[way], limit)
	}
}
