package distributed

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/pubsub"
	"github.com/fleetcall/fleetcall/coalesce/internal/redislink"
	"github.com/fleetcall/fleetcall/coalesce/internal/timers"
	"github.com/fleetcall/fleetcall/coalesce/internal/workers"
)

// Fleet is one process's part in a fleet: the replicas that share a Redis and a
// namespace. It has one subscription connection (on a Redis Cluster, one for each
// shard), one sender of commands and one set of counts, whatever the number of its
// Groups. A process needs one Fleet for each Redis.
type Fleet struct {
	set      fleetSettings
	id       string // begins the ids of its flights
	link     *redislink.Link
	subs     *pubsub.Subscriptions
	workers  workers.Pool
	expiries timers.List // of the calls that have not ended
	renewals timers.List
	inflight inflight
	garbage  atomic.Uint64
	failed   logLimit

	oneServer bool           // the client has no more than that: one clock, and a script may use any keys
	database  int            // of the client
	checked   atomic.Bool    // whether the server is one of a Cluster is known
	time      protocol.Clock // of Redis, if it is one server

	groupsMu sync.Mutex
	groups   map[string]member
	adaptive *adaptive // nil: no Group is; guarded by groupsMu

	resetMu sync.Mutex
	before  RedisStats // the counts at the last ResetStats; guarded by resetMu

	abandon                chan struct{} // closed when Close waits no longer
	down                   chan struct{} // closed when nothing goes on any more
	abandonOnce, closeOnce sync.Once
}

// member is a Group as its Fleet sees it, whatever its results are.
type member interface {
	resultType() reflect.Type
	forgetHere(key string)
	totals() Stats
	stats() Stats
	resetStats()
}

// Open returns a Fleet that talks to the client's Redis. It returns at once, whether
// Redis is there or not. The client stays the caller's: Close does not close it.
//
// A GroupOption given to Open is the default of all Groups. Open refuses a nil client,
// and options that make no sense, with an error that says what to do.
//
// With a redis.Client whose ContextTimeoutEnabled is set, a caller sends its
// flight's first command itself, which spares a wake-up. The client's hooks must
// then obey the command's context, too: they would keep that caller.
func Open(client redis.UniversalClient, opts ...Option) (*Fleet, error) {
	if err := redislink.Check(client); err != nil {
		return nil, fmt.Errorf("fleetcall: Open: %w", err)
	}
	f := &Fleet{
		set:      defaults(),
		id:       protocol.NewFleetID(),
		groups:   map[string]member{},
		inflight: newInflight(),
		abandon:  make(chan struct{}),
		down:     make(chan struct{}),
	}
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("fleetcall: Open: option %d is nil; leave it out", i+1)
		}
		if err := opt.applyToFleet(&f.set); err != nil {
			return nil, err
		}
	}
	f.database, f.oneServer = protocol.Database(client)
	if f.set.log == nil {
		f.set.log = slog.Default()
	}
	if err := f.set.group.check(f.set.redisTimeout); err != nil {
		return nil, fmt.Errorf("fleetcall: Open: %w", err)
	}
	f.link = redislink.New(client, redislink.Config{
		Namespace: f.set.namespace,
		Timeout:   f.set.redisTimeout,
		OnCommand: f.set.hooks.commandSent,
		OnChange:  f.serverChanged,
		OnUp:      func() { f.subs.Retry() },
		Survive:   f.survive,
	})
	f.subs = pubsub.Open(client, pubsub.Config{
		Control:   protocol.ControlChannel(f.set.namespace, f.id, f.database),
		Beat:      f.set.group.leaseTTL / 3,
		Timeout:   f.set.redisTimeout,
		OnControl: f.control,
		OnConnect: f.connected,
		OnHeard:   f.link.Heard,
		OnFailure: func() { f.link.Count(redislink.FailureKind(redislink.ErrUnconfirmed)) },
		OnDeaf:    f.link.Doubt,
		OnGarbage: func() { f.garbage.Add(1) },
	})
	return f, nil
}

// Close lets calls end that have started, and refuses new ones with
// coalesce.ErrClosed. When ctx ends first, it gives up the flights that this
// replica leads, so that others take over at once, and returns ctx.Err(); the
// callers left here get coalesce.ErrClosed. Close may be called again, with a
// context that ends sooner.
func (f *Fleet) Close(ctx context.Context) error {
	f.inflight.close()
	f.closeOnce.Do(func() {
		go func() {
			<-f.inflight.idle
			f.adaptiveGroups().close()
			f.subs.Close()
			f.link.Close()
			f.workers.Close()
			f.expiries.Close()
			f.renewals.Close()
			close(f.down)
		}()
	})
	select {
	case <-f.down:
		return nil
	case <-ctx.Done():
	}
	var err error
	select {
	case <-f.inflight.idle:
	default:
		err = ctx.Err()
	}
	f.abandonOnce.Do(f.abandonAll)
	// What is left waits for Redis alone, as any command does. A client that is
	// dialling a server that hangs, and a codec or an error's method that does not
	// return, are not waited for.
	limit := time.NewTimer(f.set.redisTimeout)
	defer limit.Stop()
	select {
	case <-f.down:
	case <-limit.C:
		err = ctx.Err()
	}
	return err
}

// abandonAll ends every call, whatever it waits for.
func (f *Fleet) abandonAll() {
	close(f.abandon) // a call that is not in the list yet will look
	for _, c := range f.expiries.Owners() {
		go c.(interface{ handle(event) bool }).handle(closing)
	}
}

// learnTime asks Redis for its time, more than once, because the fastest reply tells it
// best: a function that ends right after a follower has joined must not seem to have ended
// before. On a Cluster, each server has a clock of its own.
func (f *Fleet) learnTime() {
	f.checkClient()
	for i := 0; f.oneServer && i < 4; i++ {
		told, sent, received, err := f.link.Time(context.Background())
		if err != nil {
			return // the first join tells it, too
		}
		f.clock(told, sent, received)
	}
}

// clock returns the clock of Redis, which told the time in a reply that was received then.
// The masters of a Cluster have one each: there, every flight has its own.
func (f *Fleet) clock(told int64, sent, received time.Time) *protocol.Clock {
	clock := &f.time
	if !f.oneServer {
		clock = new(protocol.Clock)
	}
	clock.Told(told, sent, received)
	return clock
}

func (f *Fleet) members() map[string]member {
	f.groupsMu.Lock()
	defer f.groupsMu.Unlock()
	all := make(map[string]member, len(f.groups))
	for name, group := range f.groups {
		all[name] = group
	}
	return all
}

// survive is deferred where there is no call: a hook's or a log handler's panic
// must not end the program.
func (f *Fleet) survive() {
	value := recover()
	if value == nil {
		return
	}
	defer func() { _ = recover() }() // of the log handler again
	f.set.log.Error("fleetcall: panic beside all calls", "replica", f.set.replicaID, "error", &coalesce.PanicError{Value: value, Stack: debug.Stack()})
}
