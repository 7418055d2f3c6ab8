package distributed_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestCloseLetsFlightsEndAndRefusesNewOnes(t *testing.T) {
	f := newFleet[string](t, 1)
	g := f.groups[0]
	started, release := make(chan struct{}), make(chan struct{})
	done := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = g.Do(context.Background(), "k", func(context.Context) (string, error) {
			close(started)
			<-release
			return "v", nil
		})
		done <- a
	}()
	<-started
	closed := make(chan error, 1)
	go func() { closed <- g.Close(context.Background()) }()
	eventually(t, "new calls are refused", func() bool {
		_, _, err := g.Do(context.Background(), "other", value)
		return errors.Is(err, coalesce.ErrClosed)
	})
	close(release)
	if a := <-done; a.val != "v" || a.err != nil {
		t.Errorf("%+v", a)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if keys := f.client().Keys(context.Background(), "*").Val(); len(keys) != 0 {
		t.Errorf("left in Redis: %q", keys)
	}
}

func TestCloseThatCannotWaitHandsItsFlightsToOthers(t *testing.T) {
	f := newFleet[string](t, 2, distributed.WithLeaseTTL(time.Minute))
	started := make(chan struct{})
	var runs atomic.Int32
	fn := func(ctx context.Context) (string, error) {
		if runs.Add(1) == 1 {
			close(started)
			<-ctx.Done()
			return "", ctx.Err()
		}
		return "v", nil
	}
	first := make(chan error, 1)
	go func() {
		_, _, err := f.groups[0].Do(context.Background(), "k", fn)
		first <- err
	}()
	<-started
	second := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = f.groups[1].Do(context.Background(), "k", fn)
		second <- a
	}()
	f.waitFollowers("k", 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.groups[0].Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	if err := <-first; !errors.Is(err, coalesce.ErrClosed) {
		t.Errorf("the caller left behind: %v", err)
	}
	if a := <-second; a.val != "v" || a.role != coalesce.Leader || a.err != nil {
		t.Errorf("the caller elsewhere: %+v", a)
	}
}

func TestASecondCloseMayForceTheFirst(t *testing.T) {
	f := newFleet[string](t, 1)
	started := make(chan struct{})
	called := make(chan error, 1)
	go func() {
		_, _, err := f.groups[0].Do(context.Background(), "k", func(ctx context.Context) (string, error) {
			close(started)
			<-ctx.Done()
			return "", ctx.Err()
		})
		called <- err
	}()
	<-started
	patient := make(chan error, 1)
	go func() { patient <- f.groups[0].Close(context.Background()) }()
	eventually(t, "the patient Close has begun", func() bool {
		_, _, err := f.groups[0].Do(context.Background(), "other", value)
		return errors.Is(err, coalesce.ErrClosed)
	})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.groups[0].Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the forcing Close: %v", err)
	}
	if err := <-called; !errors.Is(err, coalesce.ErrClosed) {
		t.Errorf("the caller: %v", err)
	}
	if err := <-patient; err != nil {
		t.Errorf("the patient Close: %v", err)
	}
}

func TestCloseDoesNotWaitForARedisThatHangs(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	server.Freeze()
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	g, err := open[string](client)
	if err != nil {
		t.Fatal(err)
	}
	_, _, _ = g.Do(context.Background(), "k", value)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := g.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	server.Thaw()
	if err := g.Close(context.Background()); err != nil {
		t.Errorf("Close again: %v", err)
	}
	client.Close()
}

// TestCloseDoesNotWaitForALeaseThatNobodyCanRelease has Redis go away while a function runs,
// before Close and after. The lease lives for longer than the test.
func TestCloseDoesNotWaitForALeaseThatNobodyCanRelease(t *testing.T) {
	for name, away := range map[string]func(*redisrig.Server){"killed": (*redisrig.Server).Kill, "frozen": (*redisrig.Server).Freeze} {
		for _, first := range []string{"Redis goes first", "Close comes first"} {
			t.Run(name+", "+first, func(t *testing.T) {
				t.Parallel()
				closeBesideADeadRedis(t, away, first == "Close comes first")
			})
		}
	}
}

func closeBesideADeadRedis(t *testing.T, away func(*redisrig.Server), closeFirst bool) {
	server := redisrig.Start(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetries: -1})
	defer client.Close()
	g, err := open[string](client, distributed.WithLeaseTTL(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	started, release := make(chan struct{}), make(chan struct{})
	called := make(chan error, 1)
	go func() {
		v, role, err := g.Do(context.Background(), "k", func(context.Context) (string, error) {
			close(started)
			<-release
			return "v", nil
		})
		if v != "v" || role != coalesce.Leader {
			t.Errorf("%q, %v, %v", v, role, err)
		}
		called <- err
	}()
	<-started
	closed := make(chan error, 1)
	closing := func() {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			closed <- g.Close(ctx)
		}()
	}
	if closeFirst {
		closing()
		eventually(t, "new calls are refused", func() bool {
			_, _, err := g.Do(context.Background(), "other", value)
			return errors.Is(err, coalesce.ErrClosed)
		})
	}
	away(server)
	close(release)
	if err := <-called; err != nil {
		t.Error(err)
	}
	if !closeFirst {
		eventually(t, "the server is down", func() bool { return g.Stats().Distributed.Server == distributed.ServerDown })
		closing()
	}
	if err := <-closed; err != nil {
		t.Errorf("Close waits for the lease: %v", err)
	}
}
