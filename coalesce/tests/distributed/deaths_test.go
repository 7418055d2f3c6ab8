package distributed_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// renewals is a hook that says when a lease has been renewed.
type renewals chan struct{}

func (r renewals) Lease(l distributed.Lease) {
	if l.State == distributed.LeaseRenewed {
		select {
		case r <- struct{}{}:
		default:
		}
	}
}

// mortal has a leader of the key die, as Redis sees it, when its lease has been renewed
// so often. It returns an error if there was no leader.
func mortal(t *testing.T, server *redisrig.Server, after int, opts ...distributed.Option) error {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true})
	renewed := make(renewals, 10)
	f, err := distributed.Open(client, append(opts, distributed.WithHooks(renewed))...)
	if err != nil {
		t.Fatal(err)
	}
	began, release := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(release)
		ctx, cancel := context.WithTimeout(context.Background(), calm)
		defer cancel()
		_ = f.Close(ctx) // its client is closed
	})
	leader := calling(context.Background(), newGroup[string](t, f, "g"), "k", func(context.Context) (string, error) {
		close(began)
		<-release
		return "late", nil
	})
	select {
	case <-began:
	case got := <-leader:
		_ = client.Close()
		return got.err
	}
	for range after {
		<-renewed
	}
	_ = client.Close()
	return nil
}

// TestAKeyWhoseLeadersDieOneAfterTheOtherIsPoisoned has deaths whose leases run out when
// the flight timeout, counted from the beginning of the flight, has passed.
func TestAKeyWhoseLeadersDieOneAfterTheOtherIsPoisoned(t *testing.T) {
	const leaseTTL = 600 * time.Millisecond
	for name, tt := range map[string]struct {
		flightTimeout time.Duration
		renewals      int
	}{
		"the flight timeout is under the lease TTL": {400 * time.Millisecond, 0},
		"they die near the flight timeout":          {700 * time.Millisecond, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redisrig.Start(t)
			admin := server.Client()
			const takeovers = 1
			opts := []distributed.Option{distributed.WithLeaseTTL(leaseTTL), distributed.WithRedisTimeout(leaseTTL),
				distributed.WithFlightTimeout(tt.flightTimeout), distributed.WithMaxTakeovers(takeovers)}
			for i := range takeovers + 1 {
				if err := mortal(t, server, tt.renewals, opts...); err != nil {
					t.Fatalf("leader %d: %v", i, err)
				}
				eventually(t, "the lease has run out", func() bool { return admin.Exists(context.Background(), "fleetcall:g:{k}:lease").Val() == 0 })
			}
			if _, role, err := newGroup[string](t, openFleet(t, server, opts...), "g").Do(context.Background(), "k", value); !errors.Is(err, coalesce.ErrPoisoned) {
				t.Errorf("after %d deaths: %v, %v", takeovers+1, role, err)
			}
		})
	}
}
