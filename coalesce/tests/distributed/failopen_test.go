package distributed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

func value(context.Context) (string, error) { return "v", nil }

func TestCallersDoNotNoticeThatRedisIsGone(t *testing.T) {
	t.Parallel()
	for _, outage := range []struct {
		name string
		make func(f *fleet[string])
		mend func(f *fleet[string])
	}{
		{"killed", func(f *fleet[string]) { f.server.Kill() }, func(f *fleet[string]) { f.server.Restart() }},
		{"frozen", func(f *fleet[string]) { f.server.Freeze() }, func(f *fleet[string]) { f.server.Thaw() }},
		{"full", func(f *fleet[string]) {
			f.client().ConfigSet(context.Background(), "maxmemory", "1")
		}, func(f *fleet[string]) {
			f.client().ConfigSet(context.Background(), "maxmemory", "0")
		}},
		{"read-only", func(f *fleet[string]) {
			f.client().ReplicaOf(context.Background(), "127.0.0.1", "1")
		}, func(f *fleet[string]) {
			f.client().ReplicaOf(context.Background(), "NO", "ONE")
		}},
	} {
		t.Run(outage.name, func(t *testing.T) {
			f := newFleet[string](t, 2, distributed.WithRedisTimeout(250*time.Millisecond))
			outage.make(f)
			for range 5 {
				answers := f.herd(context.Background(), 10, "k", value)
				for _, a := range answers {
					if a.val != "v" || a.err != nil {
						t.Errorf("%+v", a)
					}
				}
				if n := roles(answers); n[coalesce.Leader]+n[coalesce.RemoteFollower] != 0 {
					t.Errorf("roles %v", n)
				}
			}
			s := f.groups[0].Stats().Distributed
			if s.Server != distributed.ServerDown || s.RedisErrors == 0 || s.Fallbacks == 0 {
				t.Errorf("%+v", s)
			}
			outage.mend(f)
			for _, g := range f.groups {
				eventually(t, "the server is up", func() bool {
					_, role, err := g.Do(context.Background(), "again", value)
					return err == nil && role == coalesce.Leader && g.Stats().Distributed.Server == distributed.ServerUp
				})
			}
		})
	}
}

func TestFollowersRunTheirOwnWhenRedisIsKilledInFlight(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 3, distributed.WithRedisTimeout(time.Second), distributed.WithLeaseTTL(time.Second))
	var runs atomic.Int32
	answers := f.overlapping(20, "k", func(context.Context) (string, error) {
		if runs.Add(1) == 1 {
			f.waitFollowers("k", 2)
			f.server.Kill()
			eventually(t, "the followers have given up waiting", func() bool { return runs.Load() == 3 })
		}
		return "v", nil
	})
	for _, a := range answers {
		if a.val != "v" || a.err != nil {
			t.Errorf("%+v", a)
		}
	}
	if n := roles(answers); n[coalesce.Leader] != 1 || n[coalesce.Fallback] != 2 {
		t.Errorf("roles %v", n)
	}
}

func TestFollowersGetTheirResultThoughTheirSubscriptionIsCut(t *testing.T) {
	f := newFleet[string](t, 3)
	var runs atomic.Int32
	answers := f.overlapping(20, "k", func(context.Context) (string, error) {
		runs.Add(1)
		f.waitFollowers("k", 2)
		for range 5 {
			f.client().ClientKillByFilter(context.Background(), "TYPE", "pubsub")
			f.waitFollowers("k", 2)
		}
		return "v", nil
	})
	for _, a := range answers {
		if a.val != "v" || a.err != nil {
			t.Errorf("%+v", a)
		}
	}
	if n := roles(answers); runs.Load() != 1 || n[coalesce.Leader] != 1 || n[coalesce.RemoteFollower] != 2 {
		t.Errorf("%d executions, roles %v", runs.Load(), n)
	}
}

// encodesNothing is a codec that encodes nothing.
type encodesNothing struct{}

func (encodesNothing) Name() string { return "nothing" }

func (encodesNothing) Marshal(string) ([]byte, error) { return nil, errors.New("refused") }

func (encodesNothing) Unmarshal([]byte) (string, error) { return "", errors.New("refused") }

func TestWhatIsWrongWithEachOfManyFlightsIsLoggedOnceASecond(t *testing.T) {
	var log logged
	f := newFleet[string](t, 1, distributed.WithCodec[string](encodesNothing{}), distributed.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	began := time.Now()
	for i := range 50 {
		if _, _, err := f.groups[0].Do(context.Background(), fmt.Sprint(i), value); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "cannot be encoded") })
	if n, most := strings.Count(log.String(), "cannot be encoded"), 2+int(time.Since(began).Seconds()); n > most {
		t.Errorf("%d lines within %v", n, time.Since(began))
	}
}

func TestAGroupThatFailsClosedSaysSo(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 1, distributed.WithFailClosed())
	f.server.Kill()
	for range 3 {
		_, _, err := f.groups[0].Do(context.Background(), "k", value)
		if !errors.Is(err, coalesce.ErrUnavailable) {
			t.Errorf("%v", err)
		}
	}
	if d := f.groups[0].Stats().Distributed; d.NoRole != 3 || d.Requests != 3 || d.Errors != 3 {
		t.Errorf("%+v", d)
	}
}

func TestForgetWithoutRedisSaysSoAndForgetsHere(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 1, distributed.WithRedisTimeout(time.Second), distributed.WithLeaseTTL(time.Second))
	g := f.groups[0]
	f.server.Kill()
	release := make(chan struct{})
	started := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _, _ = g.Do(context.Background(), "k", func(context.Context) (string, error) {
			close(started)
			<-release
			return "old", nil
		})
	}()
	<-started
	if err := g.Forget(context.Background(), "k"); !errors.Is(err, coalesce.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if v, _, err := g.Do(context.Background(), "k", value); v != "v" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	close(release)
	<-done
}

func TestARedisThatIsNotThereDoesNotKeepAGroupFromStarting(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer client.Close()
	g, err := open[string](client)
	if err != nil {
		t.Fatal(err)
	}
	if v, role, err := g.Do(context.Background(), "k", value); v != "v" || role != coalesce.Fallback || err != nil {
		t.Errorf("%q, %v, %v", v, role, err)
	}
	if err := g.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// cutWrites closes the connection under the next SUBSCRIBE to a key's channel.
type cutWrites struct {
	net.Conn
	cut *atomic.Bool
}

func (c cutWrites) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("subscribe")) && bytes.Contains(b, []byte("{k}")) && c.cut.CompareAndSwap(true, false) {
		c.Conn.Close()
		return 0, errors.New("broken pipe")
	}
	return c.Conn.Write(b)
}

func TestASubscribeThatIsLostIsMadeUpFor(t *testing.T) {
	f := newFleet[string](t, 1)
	var cut atomic.Bool
	cut.Store(true)
	client := redis.NewClient(&redis.Options{Addr: f.server.Addr, Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return cutWrites{conn, &cut}, err
	}})
	defer client.Close()
	client.AddHook(f)
	g, err := open[string](client, distributed.WithRedisTimeout(3*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close(context.Background())
	f.groups = append(f.groups, g)
	f.waitSubscribed(2)
	started, release := make(chan struct{}), make(chan struct{})
	go f.groups[0].Do(context.Background(), "k", func(context.Context) (string, error) {
		close(started)
		<-release
		return "v", nil
	})
	<-started
	done := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = g.Do(context.Background(), "k", value)
		done <- a
	}()
	// Only the follower subscribes, and its first SUBSCRIBE is cut.
	f.waitFollowers("k", 1)
	close(release)
	if a := <-done; cut.Load() || a.role != coalesce.RemoteFollower || a.err != nil {
		t.Errorf("cut: %v; %+v", !cut.Load(), a)
	}
}

func TestAResultThatRedisTookLateIsNotGivenToThoseWhoCameAfterItsEnd(t *testing.T) {
	f := newFleet[string](t, 2)
	f.failFinishes.Store(1)
	if v, _, err := f.groups[0].Do(context.Background(), "k", func(context.Context) (string, error) { return "old", nil }); v != "old" || err != nil {
		t.Fatal(v, err)
	}
	eventually(t, "the first finish has failed", func() bool { return f.failFinishes.Load() == 0 })
	time.Sleep(50 * time.Millisecond) // an age is exact to a command's way, no more
	// The function has ended and its lease lives: this caller joins it.
	if v, _, err := f.groups[1].Do(context.Background(), "k", func(context.Context) (string, error) { return "new", nil }); v != "new" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
}

func TestForgetDropsWhatMaxAgeKeptThoughRedisIsFull(t *testing.T) {
	f := newFleet[string](t, 1, distributed.WithMaxAge(time.Hour))
	ctx := context.Background()
	if _, _, err := f.groups[0].Do(ctx, "k", value); err != nil {
		t.Fatal(err)
	}
	f.quiet()
	f.foreignLease("k", time.Hour)
	f.client().ConfigSet(ctx, "maxmemory", "1")
	_ = f.groups[0].Forget(ctx, "k") // may say that Redis is full
	if n := f.client().Exists(ctx, "fleetcall:test:{k}:latest").Val(); n != 0 {
		t.Error("the kept value is still there")
	}
}

type panickingCodec struct{ coalesce.Codec[string] }

func (panickingCodec) Marshal(string) ([]byte, error) { panic("marshal") }

func (panickingCodec) Unmarshal([]byte) (string, error) { panic("unmarshal") }

func TestACodecThatPanicsHurtsNoCaller(t *testing.T) {
	f := newFleet[string](t, 2, distributed.WithCodec[string](panickingCodec{coalesce.JSON[string]()}))
	for _, a := range f.overlapping(2, "marshal", value) {
		if a.val != "v" || a.err != nil {
			t.Errorf("marshal: %+v", a)
		}
	}
	f.foreignLease("unmarshal", time.Hour)
	done := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = f.groups[0].Do(context.Background(), "unmarshal", value)
		done <- a
	}()
	f.waitFollowers("unmarshal", 1)
	f.client().Publish(context.Background(), "fleetcall:test:{unmarshal}@0", foreignOutcome("json", `"old"`))
	if a := <-done; a.val != "v" || a.role != coalesce.Fallback || a.err != nil {
		t.Errorf("unmarshal: %+v", a)
	}
}

// TestACallerLeavesThoughItsJoinHangs has callers leave a Redis that hangs: one
// whose client may keep it does not send its command itself, and one who does
// keeps its deadline.
func TestACallerLeavesThoughItsJoinHangs(t *testing.T) {
	t.Parallel()
	const redisTimeout = 3 * time.Second
	f := newFleet[string](t, 2, distributed.WithRedisTimeout(redisTimeout))
	f.server.Freeze()
	defer f.server.Thaw()
	for i, keepsDeadlines := range []bool{true, false} {
		leaving := map[string]func() (context.Context, context.CancelFunc){
			"deadline": func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(t.Context(), 100*time.Millisecond)
			},
			"cancelled": func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(100*time.Millisecond, cancel)
				return ctx, cancel
			},
		}
		var all sync.WaitGroup
		for how, leave := range leaving {
			all.Go(func() {
				ctx, cancel := leave()
				defer cancel()
				began := time.Now()
				_, _, err := f.groups[i].Do(ctx, how, value)
				most := redisTimeout / 2
				sends := how == "cancelled" && keepsDeadlines
				if sends {
					most = 2 * redisTimeout // its own command ends with the Redis timeout
				}
				// By then, it may find a result instead: its replica ran its own function.
				if err != ctx.Err() && (err != nil || !sends) {
					t.Errorf("%s, client keeps deadlines: %v: %v", how, keepsDeadlines, err)
				}
				if took := time.Since(began); took > most {
					t.Errorf("%s, client keeps deadlines: %v: it left after %v", how, keepsDeadlines, took)
				}
			})
		}
		all.Wait()
	}
}
