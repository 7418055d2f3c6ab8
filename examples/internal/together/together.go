// Package together is what the tests of the examples wait for: that callers of several
// replicas share one flight.
package together

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig"
)

// onItsWay is longer than a reply takes on its way: by what a leader knows of Redis' clock,
// a function that ends sooner after a follower's join may have ended before it.
const onItsWay = 100 * time.Millisecond

// Following is a distributed.Hook that counts the flights that follow one of another replica.
type Following struct{ atomic.Int64 }

// Followed makes Following a hook.
func (f *Following) Followed(context.Context, distributed.Followed) { f.Add(1) }

// Options are those of a fleet whose Redis answers however busy the machine is.
func (f *Following) Options() []distributed.Option {
	const patient = 10 * time.Second
	return []distributed.Option{distributed.WithHooks(f), distributed.WithRedisTimeout(patient), distributed.WithLeaseTTL(patient)}
}

// Wait waits until n callers wait on each replica, and all replicas but one follow. It takes
// the function of each replica that returns its counts.
func (f *Following) Wait(t testing.TB, n int, replicas ...func() distributed.Stats) {
	t.Helper()
	rig.Wait(t, "all callers to share one flight", func() error {
		for _, stats := range replicas {
			if waiting := stats().Local.Waiting; waiting != int64(n) {
				return fmt.Errorf("%d of %d wait", waiting, n)
			}
		}
		if following := f.Load(); following != int64(len(replicas)-1) {
			return fmt.Errorf("%d replicas follow", following)
		}
		return nil
	})
	time.Sleep(onItsWay)
}
