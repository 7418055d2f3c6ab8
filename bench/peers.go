package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/bsm/redislock"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidislock"
	"golang.org/x/sync/singleflight"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// lifetime is how long a peer's lock and result live in Redis: longer than any
// flight measured here.
const lifetime = 5 * time.Second

// do is one caller's call at one replica.
type do func(ctx context.Context, key string, fn func(context.Context) ([]byte, error)) ([]byte, error)

// replica is one process's part of a fleet: with connections of its own.
type replica struct {
	do    do
	close func()
}

// fleetPeer makes replicas of one way to merge calls across a fleet.
type fleetPeer struct {
	name string
	hot  bool // all flights are on one key; else each has a new one
	// asItComes is a peer alone; else x/sync merges the callers of a replica
	// before it, which it does not do by itself.
	asItComes bool
	floor     bool
	make      func(addr string) replica
}

const (
	oursHot  = "fleetcall, hot key"
	oursCold = "fleetcall, cold key"
)

// fleetPeers are ours and the peers: each peer as it comes, and with x/sync's
// singleflight in front of it, so that a replica asks Redis once for all of its
// callers.
func fleetPeers() []fleetPeer {
	all := []fleetPeer{
		{name: oursHot, hot: true, make: newFleetcall},
		{name: oursCold, make: newFleetcall},
	}
	for _, peer := range []fleetPeer{
		{name: "rueidis, cache-aside", make: newAside},
		{name: "rueidislock", make: newRueidislock},
		{name: "redislock, poll 5 ms", make: newPoller(5 * time.Millisecond)},
		{name: "redislock, poll 50 ms", make: newPoller(50 * time.Millisecond)},
	} {
		all = append(all,
			fleetPeer{name: peer.name, asItComes: true, make: patient(peer.make)},
			fleetPeer{name: peer.name + " behind x/sync", make: merged(peer.make)})
	}
	return all
}

// floors are no peers: they are the least that there is to do.
func floors() []fleetPeer {
	return []fleetPeer{
		{name: bareFloor, floor: true, make: merged(newBare)},
		{name: "x/sync alone (no Redis)", floor: true, make: merged(newApart)},
	}
}

const bareFloor = "one SET and one PUBLISH behind x/sync"

// newApart merges nothing across the fleet: each replica runs the function.
func newApart(string) replica {
	return replica{close: func() {}, do: func(ctx context.Context, _ string, fn func(context.Context) ([]byte, error)) ([]byte, error) {
		return fn(ctx)
	}}
}

// newBare sends, with go-redis, the least that a replica must: one command to learn
// who leads, and, as the leader, one message with the result. It promises nothing: what
// errs, ends early or comes late is lost.
func newBare(addr string) replica {
	const channel = "results"
	client := newClient(addr)
	subscription := client.Subscribe(background(), channel)
	value(subscription.Receive(background()))
	var mu sync.Mutex
	results := map[string]chan []byte{}
	result := func(key string) chan []byte {
		mu.Lock()
		defer mu.Unlock()
		if results[key] == nil {
			results[key] = make(chan []byte, 1)
		}
		return results[key]
	}
	var done sync.WaitGroup
	done.Go(func() {
		for message := range subscription.Channel() {
			key, sent, _ := strings.Cut(message.Payload, "\n")
			result(key) <- []byte(sent)
		}
	})
	return replica{
		close: func() {
			_ = subscription.Close()
			done.Wait()
			_ = client.Close()
		},
		do: func(ctx context.Context, key string, fn func(context.Context) ([]byte, error)) ([]byte, error) {
			leads, err := client.SetNX(ctx, key, "", lifetime).Result()
			if err != nil {
				return nil, err
			}
			if leads {
				val, err := fn(ctx)
				done.Go(func() { _ = client.Publish(background(), channel, key+"\n"+string(val)).Err() })
				return val, err
			}
			select {
			case val := <-result(key):
				return val, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}
}

// patient gives every call of a peer its time and no more: one whose wake-up was
// lost would never return.
func patient(inner func(addr string) replica) func(addr string) replica {
	return func(addr string) replica {
		r := inner(addr)
		return replica{close: r.close, do: func(ctx context.Context, key string, fn func(context.Context) ([]byte, error)) ([]byte, error) {
			ctx, cancel := context.WithTimeout(ctx, lifetime)
			defer cancel()
			return r.do(ctx, key, fn)
		}}
	}
}

// merged puts singleflight in front of a peer.
func merged(inner func(addr string) replica) func(addr string) replica {
	return func(addr string) replica {
		r := patient(inner)(addr)
		var group singleflight.Group
		return replica{close: r.close, do: func(ctx context.Context, key string, fn func(context.Context) ([]byte, error)) ([]byte, error) {
			v, err, _ := group.Do(key, func() (any, error) { return r.do(ctx, key, fn) })
			b, _ := v.([]byte)
			return b, err
		}}
	}
}

func newFleetcall(addr string) replica {
	group, closeGroup := newGroup(addr)
	return replica{close: closeGroup, do: func(ctx context.Context, key string, fn func(context.Context) ([]byte, error)) ([]byte, error) {
		v, _, err := group.Do(ctx, key, fn)
		return v, err
	}}
}

// newGroup returns a replica's Group on a client of its own, with every
// default but those given. Nothing is logged.
func newGroup(addr string, options ...distributed.Option) (*distributed.Group[[]byte], func()) {
	return newGroupOn(newClient(addr), options...)
}

// newGroupOn is newGroup on a client that ends with it.
func newGroupOn(client redis.UniversalClient, options ...distributed.Option) (*distributed.Group[[]byte], func()) {
	options = append(options, distributed.WithLogger(slog.New(slog.DiscardHandler)))
	fleet := value(distributed.Open(client, options...))
	group := value(distributed.NewGroup[[]byte](fleet, "bench"))
	return group, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = fleet.Close(ctx)
		_ = client.Close()
	}
}

// beside is a replica and a Redis of its own, with a client of the same settings
// that sends the replica's commands bare.
type beside struct {
	addr   string
	group  *distributed.Group[[]byte]
	client *redis.Client
	ctx    context.Context // the callers': they could leave
	close  func()
}

func startBeside() beside {
	addr, stopRedis := startRedis()
	group, stopGroup := newGroup(addr)
	client := newClient(addr)
	ctx, cancel := context.WithCancel(context.Background())
	return beside{addr, group, client, ctx, func() {
		cancel()
		_ = client.Close()
		stopGroup()
		stopRedis()
	}}
}

// call calls for a key whose function does nothing.
func (b beside) call(key string) {
	_, _, err := b.group.Do(b.ctx, key, nothing)
	must(err)
}

// newPoller is the lock that most services write: whoever gets it runs the
// function, the others look for its result every so often.
func newPoller(every time.Duration) func(addr string) replica {
	return func(addr string) replica {
		client := newClient(addr)
		locks := redislock.New(client)
		return replica{close: func() { _ = client.Close() }, do: func(ctx context.Context, key string, fn func(context.Context) ([]byte, error)) ([]byte, error) {
			for waited := false; ; waited = true {
				lock, err := locks.Obtain(ctx, "lock:"+key, lifetime, nil)
				if err == nil {
					defer func() { _ = lock.Release(ctx) }()
					if waited { // the result may have come between the look and the lock
						result, err := client.Get(ctx, "result:"+key).Bytes()
						if !errors.Is(err, redis.Nil) {
							return result, err
						}
					}
					result, err := fn(ctx)
					if err != nil {
						return nil, err
					}
					return result, client.Set(ctx, "result:"+key, result, lifetime).Err()
				}
				if !errors.Is(err, redislock.ErrNotObtained) {
					return nil, err
				}
				select {
				case <-time.After(every):
				case <-ctx.Done():
					return nil, ctx.Err()
				}
				result, err := client.Get(ctx, "result:"+key).Bytes()
				if !errors.Is(err, redis.Nil) {
					return result, err
				}
			}
		}}
	}
}

// newRueidislock waits for the lock instead of polling: Redis tells rueidis'
// client-side cache when it is free.
func newRueidislock(addr string) replica {
	option := rueidis.ClientOption{InitAddress: []string{addr}}
	locker := value(rueidislock.NewLocker(rueidislock.LockerOption{
		ClientOption: option, KeyMajority: 1, NoLoopTracking: true, KeyValidity: lifetime,
	}))
	client := value(rueidis.NewClient(option))
	return replica{close: func() { locker.Close(); client.Close() }, do: func(ctx context.Context, key string, fn func(context.Context) ([]byte, error)) ([]byte, error) {
		_, release, err := locker.WithContext(ctx, key)
		if err != nil {
			return nil, err
		}
		defer release()
		result, err := client.Do(ctx, client.B().Get().Key("result:"+key).Build()).AsBytes()
		if !rueidis.IsRedisNil(err) {
			return result, err
		}
		if result, err = fn(ctx); err != nil {
			return nil, err
		}
		set := client.B().Set().Key("result:" + key).Value(rueidis.BinaryString(result)).Px(lifetime).Build()
		return result, client.Do(ctx, set).Error()
	}}
}

// aside fills a cache through a placeholder: who sets it runs the function, the
// others keep it in rueidis' client-side cache until Redis says it has changed.
// It is the way of rueidisaside.
type aside struct {
	client rueidis.Client

	mu    sync.Mutex
	waits map[string]chan struct{} // closed when the key has changed
}

const placeholder = "placeholder:"

func newAside(addr string) replica {
	a := &aside{waits: map[string]chan struct{}{}}
	a.client = value(rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{addr}, PipelineMultiplex: -1, OnInvalidations: a.changed,
	}))
	return replica{do: a.do, close: a.client.Close}
}

func (a *aside) changed(keys []rueidis.RedisMessage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, message := range keys {
		key, _ := message.ToString()
		if wait := a.waits[key]; wait != nil {
			close(wait)
			delete(a.waits, key)
		}
	}
}

func (a *aside) wait(key string) chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waits[key] == nil {
		a.waits[key] = make(chan struct{})
	}
	return a.waits[key]
}

func (a *aside) do(ctx context.Context, key string, fn func(context.Context) ([]byte, error)) ([]byte, error) {
	c := a.client
	for {
		wait := a.wait(key)
		result, err := c.DoCache(ctx, c.B().Get().Key(key).Cache(), lifetime).ToString()
		if rueidis.IsRedisNil(err) {
			hold := c.B().Set().Key(key).Value(placeholder).Nx().Get().Px(lifetime).Build()
			if result, err = c.Do(ctx, hold).ToString(); rueidis.IsRedisNil(err) {
				result, err := fn(ctx)
				if err != nil {
					return nil, err
				}
				set := c.B().Set().Key(key).Value(rueidis.BinaryString(result)).Px(lifetime).Build()
				return result, c.Do(ctx, set).Error()
			}
		}
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(result, placeholder) {
			return []byte(result), nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for %s: %w", key, ctx.Err())
		}
	}
}
