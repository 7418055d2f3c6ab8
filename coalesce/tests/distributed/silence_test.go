package distributed_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// TestAFollowerOfAnIdleReplicaNoticesThatRedisHangs follows a lease that would
// outlast the flight timeout, on a replica that sends nothing else.
func TestAFollowerOfAnIdleReplicaNoticesThatRedisHangs(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 1,
		distributed.WithRedisTimeout(time.Second),
		distributed.WithLeaseTTL(1500*time.Millisecond), // a third of it is the heartbeat
		distributed.WithFlightTimeout(9*time.Second))    // less than what makes any connection be pinged
	f.foreignLease("k", time.Minute)
	answers := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = f.groups[0].Do(context.Background(), "k", value)
		answers <- a
	}()
	f.waitFollowers("k", 1)
	f.server.Freeze()
	defer f.server.Thaw()
	if a := <-answers; a.val != "v" || a.role != coalesce.Fallback || a.err != nil {
		t.Errorf("%+v", a)
	}
}

// refusing closes every connection that subscribes, once it is told to.
type refusing struct {
	net.Conn
	refuses *atomic.Bool
}

func (c refusing) Write(b []byte) (int, error) {
	if c.refuses.Load() && bytes.Contains(b, []byte("subscribe\r\n")) {
		_ = c.Close()
		return 0, errors.New("broken pipe")
	}
	return c.Conn.Write(b)
}

func TestAFollowerThatCannotSubscribeAgainRunsItsOwn(t *testing.T) {
	f := newFleet[string](t, 0)
	ctx := context.Background()
	var refuses atomic.Bool
	client := redis.NewClient(&redis.Options{Addr: f.server.Addr, Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return refusing{conn, &refuses}, err
	}})
	defer client.Close()
	var peeks atomic.Int64
	client.AddHook(&tap{t: t, server: f.server, after: func(script string, _ []any, _ any, _ time.Duration) {
		if script == "peek" {
			peeks.Add(1)
		}
	}})
	g, err := open[string](client, distributed.WithRedisTimeout(time.Second),
		distributed.WithLeaseTTL(time.Minute), distributed.WithFlightTimeout(20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close(ctx)
	f.waitSubscribed(1)
	f.foreignLease("k", time.Minute)
	answers := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = g.Do(ctx, "k", value)
		answers <- a
	}()
	eventually(t, "the follower waits for the message alone", func() bool { return peeks.Load() == 1 })
	refuses.Store(true)
	if err := f.client().ClientKillByFilter(ctx, "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	if a := <-answers; a.val != "v" || a.role != coalesce.Fallback || a.err != nil {
		t.Errorf("%+v", a)
	}
	refuses.Store(false)
}

// deafTo returns a dialer whose first connection that subscribes never gets a
// message of the channel, as one to a server that is the master no more.
func deafTo(channel string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	var first atomic.Pointer[lossyConn]
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		lossy := &lossyConn{Conn: conn}
		lossy.lose = func(frame []byte) bool {
			if !bytes.Contains(frame, []byte("\r\n"+channel+"\r\n")) {
				return false
			}
			first.CompareAndSwap(nil, lossy)
			return first.Load() == lossy
		}
		return lossy, nil
	}
}

func TestAConnectionThatLosesMessagesIsReplaced(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 1, distributed.WithLeaseTTL(time.Second))
	ctx := context.Background()
	var peeks atomic.Int64 // of a flight that runs
	w := &tap{t: t, server: f.server, after: func(script string, _ []any, reply any, _ time.Duration) {
		if list, _ := reply.([]any); script == "peek" && len(list) > 0 && list[0] == "running" {
			peeks.Add(1)
		}
	}}
	client := redis.NewClient(&redis.Options{Addr: f.server.Addr, Dialer: deafTo("fleetcall:test:{k}@0")})
	defer client.Close()
	client.AddHook(w)
	follower, err := open[string](client, distributed.WithRedisTimeout(3*time.Second), distributed.WithFlightTimeout(20*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer follower.Close(ctx)
	f.waitSubscribed(2)

	var runs atomic.Int32
	leads, follows := make(chan answer[string], 1), make(chan answer[string], 1)
	started := make(chan struct{})
	do := func(g *replica[string], answers chan<- answer[string]) {
		var a answer[string]
		a.val, a.role, a.err = g.Do(ctx, "k", func(context.Context) (string, error) {
			runs.Add(1)
			close(started)
			eventually(t, "the follower waits for the message alone", func() bool { return peeks.Load() > 0 })
			return "v", nil
		})
		answers <- a
	}
	go do(f.groups[0], leads)
	<-started
	go do(follower, follows)
	f.waitFollowers("k", 1)
	admin := f.client()
	before := f.followerConnections(admin)
	if a := <-leads; a.val != "v" || a.err != nil {
		t.Errorf("the leader: %+v", a)
	}
	if a := <-follows; a.val != "v" || a.role != coalesce.RemoteFollower || a.err != nil {
		t.Errorf("whose message was lost: %+v", a)
	}
	if n := runs.Load(); n != 1 {
		t.Errorf("%d executions", n)
	}
	f.quiet()
	expectNextMessage(t, f, follower, before)
}

// expectNextMessage fails the test unless the follower has replaced its connection,
// and receives a message on the new one.
func expectNextMessage(t *testing.T, f *fleet[string], follower *replica[string], before []string) {
	t.Helper()
	ctx, admin := context.Background(), f.client()
	// Only a message can end the next flight: its lease outlives its follower.
	f.foreignLease("k", time.Minute)
	joined := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = follower.Do(ctx, "k", func(context.Context) (string, error) { return "own", nil })
		joined <- a
	}()
	eventually(t, "the follower has another connection", func() bool {
		now := f.followerConnections(admin)
		return len(now) == 1 && !slices.Equal(now, before)
	})
	eventually(t, "a message arrives", func() bool {
		admin.Publish(ctx, "fleetcall:test:{k}@0", foreignOutcome("json", `"theirs"`))
		return len(joined) > 0
	})
	if a := <-joined; a.val != "theirs" || a.role != coalesce.RemoteFollower || a.err != nil {
		t.Errorf("after the loss: %+v", a)
	}
}

// followerConnections returns the ids of the connections that have subscribed to
// one key's channel besides the control channel.
func (f *fleet[V]) followerConnections(admin *redis.Client) (ids []string) {
	f.t.Helper()
	list, err := admin.Do(context.Background(), "CLIENT", "LIST", "TYPE", "pubsub").Text()
	if err != nil {
		f.t.Fatal(err)
	}
	for line := range strings.Lines(list) {
		if strings.Contains(line, " sub=2 ") {
			ids = append(ids, strings.Fields(line)[0])
		}
	}
	return ids
}
