package rollcall_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
	"github.com/fleetcall/fleetcall/internal/rollcall"
)

// sharing is a replica that shares messages, each of which it makes is another.
type sharing struct {
	shared *rollcall.Shared
	made   atomic.Int64
	ctx    context.Context
	leave  context.CancelFunc
}

func share(t *testing.T, server *redisrig.Server, name string) *sharing {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	s := &sharing{}
	s.shared = join(t, client, name, nil).Share("topic", 50*time.Millisecond, func(context.Context) ([]byte, error) {
		return fmt.Appendf(nil, "%s %d", name, s.made.Add(1)), nil
	})
	s.ctx, s.leave = context.WithCancel(context.Background())
	t.Cleanup(s.leave)
	return s
}

// next returns the next message and who made it. It keeps the pace that a watched replica
// has: one message an interval at most.
func (s *sharing) next(t *testing.T) (message, maker string) {
	t.Helper()
	began := time.Now()
	raw, err := s.shared.Next(s.ctx)
	if err != nil {
		t.Error(err)
		s.leave()
	}
	time.Sleep(time.Until(began.Add(50 * time.Millisecond)))
	maker, _, _ = strings.Cut(string(raw), " ")
	return string(raw), maker
}

func TestOneReplicaMakesTheMessageOfAll(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	const replicas, messages = 8, 15
	var all []*sharing
	for i := range replicas {
		all = append(all, share(t, server, fmt.Sprint("r", i)))
	}
	var watching sync.WaitGroup
	for _, s := range all {
		watching.Go(func() {
			for range messages {
				s.next(t)
			}
		})
	}
	watching.Wait()
	made := int64(0)
	for _, s := range all {
		made += s.made.Load()
	}
	// Each makes its first one for itself, and then one of them those of all. A stall of the
	// machine lets others make some, too. Unshared, each makes all of its own.
	if most := int64(replicas * messages / 2); made > most {
		t.Errorf("%d replicas made %d messages to show %d each, want at most %d", replicas, made, messages, most)
	}
}

func TestAnotherReplicaGoesOnWhenTheMakerLeaves(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	all := map[string]*sharing{"first": share(t, server, "first"), "second": share(t, server, "second")}
	type shown struct{ by, maker string }
	showing := make(chan shown)
	var watching sync.WaitGroup
	for name, s := range all {
		watching.Go(func() {
			for s.ctx.Err() == nil {
				raw, err := s.shared.Next(s.ctx)
				if err != nil {
					continue // it has left
				}
				maker, _, _ := strings.Cut(string(raw), " ")
				select {
				case showing <- shown{name, maker}:
				case <-s.ctx.Done():
				}
			}
		})
	}
	left := "" // the maker that has left
	for s := range showing {
		if left == "" && s.by != s.maker {
			left = s.maker
			all[left].leave()
			continue
		}
		if left != "" && s.by != left && s.maker == s.by {
			break // the other goes on by itself
		}
	}
	for _, s := range all {
		s.leave()
	}
	watching.Wait()
}

func TestSharedMessagesThatAreNoneAreIgnored(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	s := share(t, server, "only")
	for range 20 {
		for _, garbage := range []string{"", "short", strings.Repeat("x", 26), strings.Repeat("x", 200)} {
			if err := server.Client().Publish(context.Background(), "test:census@0:topic", garbage).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if message, maker := s.next(t); maker != "only" {
			t.Errorf("%q is shown", message)
		}
	}
}

func TestWithoutRedisEachReplicaMakesItsOwn(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	s := share(t, server, "only")
	s.next(t)
	server.Kill()
	for i := range 3 {
		if message, _ := s.next(t); message != fmt.Sprint("only ", 2+i) {
			t.Errorf("message %d is %q", i, message)
		}
	}
}

func TestWhoWantsNoMessageAnyMoreIsNotKept(t *testing.T) {
	t.Parallel()
	s := share(t, redisrig.Start(t), "only")
	s.next(t)
	s.leave()
	if message, err := s.shared.Next(s.ctx); err == nil {
		t.Errorf("got %q", message)
	}
}
