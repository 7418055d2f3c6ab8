// Package shadow tells what coalescing would save, before anything is coalesced.
//
// A Group is a coalesce.Group in which every caller runs its own function, as with
// coalesce.Off. It follows the calls beside that, and tells how many of their executions
// the tiers local and distributed would have spared, and how much of the functions' time.
//
//	fleet, err := shadow.Open(redisClient)
//	products, err := shadow.NewGroup[Product](fleet, "products")
//	…
//	would := products.Stats()
//
// No caller waits for Redis, and none fails because of it: all that Redis is told and
// asked is told and asked by other goroutines, once a second. What they cannot send in
// time is dropped, and the second is not counted.
//
// # How it is known
//
// A flight that coalescing would have made is one that a call starts while no other call
// of its key leads one. It ends when that call does, and the calls that come meanwhile
// would have been its followers. So the tier local is counted from what this process
// sees, of all keys and exactly.
//
// For the tier distributed, each replica publishes once a second when the calls of the
// keys that it follows began and ended, by Redis' clock, and hears what the others
// publish. Each replays the calls of all of them, and counts its own. The replicas follow
// the same keys:
//
//   - all of them, while no replica makes more calls a second than WithFullBelow says;
//   - otherwise the hottest, of which the replicas tell each other each second, because a
//     few of them make most of what is saved, and a sample that has them or has not would
//     say nothing;
//   - and of the others one of 64, or of what WithSample says, by the hash of the key.
//
// A second counts only when the reports of all replicas have come and say that they
// followed the same keys. Calls of other seconds are taken to be like those of the seconds
// that count: Stats.Covered says how many those are.
//
// # How sure it is
//
// What the sample of the other keys says is an estimate: of the flights that local would
// have made of them, distributed would have made a part, which is taken to be that of
// the sampled keys (a ratio estimator). Its standard error is that of sampled keys, not
// of sampled calls, because the calls of a key go together: the sampled keys are 64
// random groups by their hashes, and how much the groups differ says how much another
// sample would (Wolter, Introduction to Variance Estimation, chapter 2). Two times of
// three the truth is within one standard error, and nineteen times of twenty within two.
//
// # What it does not know
//
// Calls that are not coalesced load what they ask more. Functions that take longer for
// that reason overlap more, so that of an overloaded database shadow promises more than
// coalescing then needs to save. A client that waits for its answer before it asks again
// asks sooner when it is coalesced.
package shadow

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Fleet is one process's part in a fleet of replicas that tell each other, through Redis,
// what they would have coalesced. It has one subscription and three goroutines, whatever
// the number of its Groups. Close it after use.
type Fleet struct {
	set       settings
	id        uint64 // random
	begun     time.Time
	transport transport
	clock     clock
	shards    [shardCount]shard
	followed  atomic.Pointer[followed]

	received chan []byte // reports, also this replica's own
	outbox   chan []byte
	judge    judge // of the goroutine that run is

	mu        sync.Mutex
	groups    []*counted // in order of NewGroup; guarded by mu
	seconds   Seconds    // guarded by mu
	replicas  int        // in the last second that counts; guarded by mu
	secondsAt Seconds    // at the last ResetStats; guarded by mu
	resetAt   time.Duration

	cancel     context.CancelFunc
	goroutines sync.WaitGroup
}

// Open returns a Fleet that talks to the client's Redis. It returns at once, whether Redis
// is there or not. The client stays the caller's: Close does not close it. With a nil
// client the Fleet knows of no other replica, and tells only what local would save.
func Open(client redis.UniversalClient, opts ...Option) (*Fleet, error) {
	set := settings{namespace: "fleetcall", sample: 64, fullBelow: 2000}
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("fleetcall: shadow.Open: option %d is nil; leave it out", i+1)
		}
		if err := opt(&set); err != nil {
			return nil, err
		}
	}
	if v := reflect.ValueOf(client); v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, fmt.Errorf("fleetcall: shadow.Open: the client is a %T that is nil; give nil itself for a process without Redis", client)
	}
	if _, ok := client.(*redis.Ring); ok {
		return nil, errors.New("fleetcall: shadow.Open: a redis.Ring has no server that all replicas share channels on; use a Client, FailoverClient or ClusterClient")
	}
	set.alone = client == nil
	if set.alone {
		return open(set, newLoopback()), nil
	}
	return open(set, newRedisTransport(client, set.namespace)), nil
}

// open starts a Fleet over a transport.
func open(set settings, t transport) *Fleet {
	f := &Fleet{
		set:       set,
		id:        rand.Uint64(),
		begun:     time.Now(),
		transport: t,
		received:  make(chan []byte, 4*maxReplicas),
		outbox:    make(chan []byte, 4),
	}
	f.followed.Store(&followed{all: set.fullBelow > 0})
	f.judge = judge{fleet: f, heard: map[uint64]int64{}, first: map[uint64]int64{}, pending: map[int64]*second{}, replay: newReplay(set.maxAge)}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	f.goroutines.Go(func() { f.run(ctx) })
	f.goroutines.Go(func() { f.send(ctx) })
	f.goroutines.Go(func() { t.receive(ctx, f.hear) })
	return f
}

// Close tells the other replicas that this one is gone, so that they do not wait for its
// reports, and ends the Fleet's goroutines. Its Groups go on, and count what local would
// save. If ctx ends first, Close returns its error, and what waits for Redis ends when the
// client gives up.
func (f *Fleet) Close(ctx context.Context) error {
	f.cancel()
	done := make(chan struct{})
	go func() {
		f.goroutines.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("fleetcall: closing a shadow fleet: %w", ctx.Err())
	}
}

// hear takes a report that came, unless too many wait.
func (f *Fleet) hear(message []byte) {
	select {
	case f.received <- message:
	default: // the second will not count
	}
}

// now returns how long ago the Fleet was opened.
func (f *Fleet) now() time.Duration { return time.Since(f.begun) }
