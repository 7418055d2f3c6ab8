package distributed_test

import (
	"bytes"
	"context"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// heldConn keeps writes back while hold says so.
type heldConn struct {
	net.Conn
	hold func(b []byte)
}

func (c heldConn) Write(b []byte) (int, error) {
	c.hold(b)
	return c.Conn.Write(b)
}

// joinHeld makes a replica whose every write passes hold first.
func (f *fleet[V]) joinHeld(hold func(b []byte), opts ...distributed.Option) *replica[V] {
	f.t.Helper()
	client := redis.NewClient(&redis.Options{Addr: f.server.Addr, Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return heldConn{conn, hold}, err
	}})
	client.AddHook(f)
	g, err := open[V](client, opts...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := g.Close(context.Background()); err != nil {
			f.t.Errorf("Close: %v", err)
		}
		_ = client.Close()
	})
	f.groups = append(f.groups, g)
	f.waitSubscribed(len(f.groups))
	f.settled()
	return g
}

// TestAResultThatWasHeldUpGoesToNobodyWhoCameAfterItsEnd stalls the leader's
// way to Redis when its function has ended, for longer than its Redis timeout
// and less than its lease.
func TestAResultThatWasHeldUpGoesToNobodyWhoCameAfterItsEnd(t *testing.T) {
	f := newFleet[string](t, 1, distributed.WithLeaseTTL(time.Minute))
	ctx := context.Background()
	stalled := make(chan struct{}) // closed when the way is free again
	var ended atomic.Bool
	leader := f.joinHeld(func([]byte) {
		if ended.Load() {
			<-stalled
		}
	}, distributed.WithRedisTimeout(200*time.Millisecond), distributed.WithLeaseTTL(time.Minute))
	if v, _, err := leader.Do(ctx, "k", func(context.Context) (string, error) {
		ended.Store(true)
		return "old", nil
	}); v != "old" || err != nil {
		t.Fatal(v, err)
	}
	eventually(t, "a finish has failed", func() bool { return leader.Stats().Distributed.RedisErrorsBy["timeout"] > 0 })
	joins := f.joins.Load()
	late := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = f.groups[0].Do(ctx, "k", func(context.Context) (string, error) { return "new", nil })
		late <- a
	}()
	eventually(t, "the late caller has joined", func() bool { return f.joins.Load() > joins })
	f.waitFollowers("k", 1)
	time.Sleep(300 * time.Millisecond) // it is stalled for longer than any finish says that it was on its way
	close(stalled)
	if a := <-late; a.val != "new" || a.err != nil {
		t.Errorf("who came after the end: %+v", a)
	}
	f.quiet()
}

func TestAJoinThatArrivesAfterItsFlightEndedLeavesNoLease(t *testing.T) {
	f := newFleet[string](t, 1, distributed.WithMaxTakeovers(0))
	ctx := context.Background()
	stalled := make(chan struct{})
	var scripts []string // the SHAs of join: of one key, and of many
	for source, name := range scriptNames() {
		if name == "join" && len(source) == 40 {
			scripts = append(scripts, source)
		}
	}
	g := f.joinHeld(func(b []byte) {
		if slices.ContainsFunc(scripts, func(join string) bool { return bytes.Contains(b, []byte(join)) }) {
			<-stalled
		}
	}, distributed.WithRedisTimeout(200*time.Millisecond), distributed.WithLeaseTTL(time.Minute))
	if v, role, err := g.Do(ctx, "k", value); v != "v" || role != coalesce.Fallback || err != nil {
		t.Fatal(v, role, err)
	}
	eventually(t, "Redis has the end of the flight", func() bool {
		return f.commands()["evalsha"] > 0
	})
	joins := f.joins.Load()
	close(stalled)
	eventually(t, "Redis has the join", func() bool { return f.joins.Load() > joins })
	if names := f.client().Keys(ctx, "fleetcall:test:{k}:[la]*").Val(); len(names) != 0 {
		t.Errorf("left in Redis: %q", names)
	}
	// A lease that nobody releases would keep this caller for a minute.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if v, role, err := f.groups[0].Do(ctx, "k", value); v != "v" || role != coalesce.Leader || err != nil {
		t.Errorf("%q, %v, %v", v, role, err)
	}
}
