package distributed_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// codecOf is a codec of such functions; where one is nil, bytes are taken as they are.
type codecOf struct {
	marshal   func()
	unmarshal func()
}

func (codecOf) Name() string { return "test" }

func (c codecOf) Marshal(v string) ([]byte, error) {
	if c.marshal != nil {
		c.marshal()
	}
	return []byte(v), nil
}

func (c codecOf) Unmarshal(b []byte) (string, error) {
	if c.unmarshal != nil {
		c.unmarshal()
	}
	return string(b), nil
}

// joinedBy has b follow a flight that a leads, and lets that return "v".
func joinedBy(t *testing.T, server *redisrig.Server, a, b *distributed.Group[string]) (leader, follower <-chan answer[string]) {
	t.Helper()
	began, release := make(chan struct{}), make(chan struct{})
	leader = calling(context.Background(), a, "k", func(context.Context) (string, error) {
		close(began)
		<-release
		return "v", nil
	})
	<-began
	follower = calling(context.Background(), b, "k", func(context.Context) (string, error) { return "own", nil })
	waitJoined(t, server, "g", "k")
	close(release)
	return leader, follower
}

func wantV(t *testing.T, leader <-chan answer[string]) {
	t.Helper()
	if got := comesBack(t, "the leader", leader); got.val != "v" || got.role != coalesce.Leader || got.err != nil {
		t.Errorf("the leader has %+v", got)
	}
}

func TestADecoderThatHangsKeepsNoCallerPastTheFlightTimeout(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	hang := make(chan struct{})
	a := newGroup[string](t, openFleet(t, server), "g", distributed.WithCodec[string](codecOf{}))
	b := newGroup[string](t, openFleet(t, server), "g", distributed.WithCodec[string](codecOf{unmarshal: func() { <-hang }}), distributed.WithFlightTimeout(time.Second))
	defer close(hang)
	leader, follower := joinedBy(t, server, a, b)
	wantV(t, leader)
	if got := comesBack(t, "the follower", follower); !errors.Is(got.err, coalesce.ErrFlightTimeout) {
		t.Errorf("the follower has %+v", got)
	}
}

func TestADecoderThatHangsKeepsNoCallerOfAClosedFleet(t *testing.T) {
	server := redisrig.Start(t)
	hang, decodes := make(chan struct{}), make(chan struct{})
	there := openFleet(t, server)
	a := newGroup[string](t, openFleet(t, server), "g", distributed.WithCodec[string](codecOf{}))
	b := newGroup[string](t, there, "g", distributed.WithCodec[string](codecOf{unmarshal: func() { close(decodes); <-hang }}))
	defer close(hang)
	leader, follower := joinedBy(t, server, a, b)
	wantV(t, leader)
	<-decodes
	ended, end := context.WithCancel(context.Background())
	end()
	if err := there.Close(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	if got := comesBack(t, "the follower", follower); !errors.Is(got.err, coalesce.ErrClosed) {
		t.Errorf("the follower has %+v", got)
	}
}

func TestADecoderThatEndsItsGoroutineEndsTheCalls(t *testing.T) {
	server := redisrig.Start(t)
	a := newGroup[string](t, openFleet(t, server), "g", distributed.WithCodec[string](codecOf{}))
	b := newGroup[string](t, openFleet(t, server), "g", distributed.WithCodec[string](codecOf{unmarshal: runtime.Goexit}))
	leader, follower := joinedBy(t, server, a, b)
	wantV(t, leader)
	if got := comesBack(t, "the follower", follower); !errors.Is(got.err, coalesce.ErrGoexit) {
		t.Errorf("the follower has %+v", got)
	}
}

// TestAnEncoderThatEndsItsGoroutineIsNoDeath has a leader whose outcome never comes to be.
func TestAnEncoderThatEndsItsGoroutineIsNoDeath(t *testing.T) {
	server := redisrig.Start(t)
	a := newGroup[string](t, openFleet(t, server), "g", distributed.WithCodec[string](codecOf{marshal: runtime.Goexit}))
	b := newGroup[string](t, openFleet(t, server), "g", distributed.WithCodec[string](codecOf{}))
	leader, follower := joinedBy(t, server, a, b)
	wantV(t, leader)
	if got := comesBack(t, "the follower", follower); got.val != "own" || got.err != nil {
		t.Errorf("the follower has %+v", got)
	}
	noDeathIsCounted(t, server)
}

func noDeathIsCounted(t *testing.T, server *redisrig.Server) {
	t.Helper()
	admin := server.Client()
	eventually(t, "no death is counted", func() bool {
		return admin.Exists(context.Background(), "fleetcall:g:{k}:lease", "fleetcall:g:{k}:attempts").Val() == 0
	})
}

// TestFollowersDoNotWaitForAnEncoderThatHangs has them run their own, as they do where an
// outcome is too large. They would be leaders if they had waited for the lease to run out.
func TestFollowersDoNotWaitForAnEncoderThatHangs(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	hang := make(chan struct{})
	opts := []distributed.Option{distributed.WithLeaseTTL(1500 * time.Millisecond), distributed.WithRedisTimeout(1500 * time.Millisecond)}
	codec := distributed.WithCodec[string](codecOf{marshal: func() { <-hang }})
	a, b := newGroup[string](t, openFleet(t, server, opts...), "g", codec), newGroup[string](t, openFleet(t, server, opts...), "g", codec)
	defer close(hang)
	leader, follower := joinedBy(t, server, a, b)
	wantV(t, leader)
	if got := comesBack(t, "the follower", follower); got.val != "own" || got.role != coalesce.Fallback || got.err != nil {
		t.Errorf("the follower has %+v", got)
	}
	noDeathIsCounted(t, server)
}

// TestASlowEncoderIsNoOutageForCallersThatFailClosed has one that takes longer than the
// Redis timeout, while a caller that must not have its outcome waits for it.
func TestASlowEncoderIsNoOutageForCallersThatFailClosed(t *testing.T) {
	const redisTimeout = 500 * time.Millisecond
	server := redisrig.Start(t)
	var first atomic.Bool
	codec := codecOf{marshal: func() {
		if !first.Swap(true) {
			time.Sleep(redisTimeout * 3 / 2) // the codec takes longer than Redis may
		}
	}}
	f := openFleet(t, server, distributed.WithRedisTimeout(redisTimeout), distributed.WithFailClosed())
	g := newGroup[string](t, f, "g", distributed.WithCodec[string](codec))
	for range 2 {
		if v, role, err := g.Do(context.Background(), "k", value); v != "v" || role != coalesce.Leader || err != nil {
			t.Errorf("%q, %v, %v", v, role, err)
		}
	}
}
