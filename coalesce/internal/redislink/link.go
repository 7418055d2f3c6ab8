// Package redislink sends the steps of the protocol to Redis and returns the replies.
// It sends commands that come together in one round trip, gives up those that are not
// answered in time, and keeps callers from a Redis that does not answer.
package redislink

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/timers"
)

// Config is what a Link needs to know, and the functions that it calls. None of them
// may be nil.
type Config struct {
	Namespace string        // starts the name of the key that a probe writes
	Timeout   time.Duration // of a small command, its wait for a turn included
	// OnCommand is called by Result with the command's step, how long it took, and the
	// kind of its failure, "" for none. It may panic: the panic reaches Result's
	// caller.
	OnCommand func(step string, took time.Duration, kind string)
	// OnChange is called for each change of the breaker, with the failure that opened
	// it. The calls come one after the other, on a goroutine that belongs to no caller.
	// It may panic.
	OnChange func(from, to State, why error)
	// OnOpen is called when the breaker has opened, by the caller whose command
	// failed. It must not wait for Redis.
	OnOpen func()
	// Survive is deferred where a panic of OnCommand or OnChange has no caller. It
	// must call recover itself, not in a function that it calls.
	Survive func()
}

// Link sends commands, each within the timeout, and counts what fails. Its methods may
// be called by several goroutines.
//
// It keeps its goroutines, because the client's calls are deep: a fresh goroutine
// would grow its stack for each command (see package workers).
//
// Most clients ignore a context's deadline while they read, retry, or dial. The
// link does not wait for a client that has not come back when a command's time has
// passed.
type Link struct {
	config  Config
	client  redis.UniversalClient
	prompt  bool
	breaker breaker
	probing sync.WaitGroup
	pending timers.List // of the requests that are not answered

	mu     sync.Mutex
	work   sync.Cond // queue, free or closed has changed
	queue  []*Request
	free   int // batches that may begin
	closed bool

	countMu  sync.Mutex
	failures map[string]uint64 // by kind; guarded by countMu, as the next two
	probes   *time.Timer       // nil until the breaker has opened
	stopped  bool              // no probe begins any more
}

// Check returns an error that says why a client cannot be used, and what to use
// instead; or nil.
func Check(client redis.UniversalClient) error {
	if v := reflect.ValueOf(client); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return errors.New("the Redis client is nil; make one with redis.NewClient, NewClusterClient or NewFailoverClient")
	}
	if _, ok := client.(*redis.Ring); ok {
		return errors.New("a redis.Ring has no server that all replicas share channels on; use a Client, FailoverClient or ClusterClient")
	}
	return nil
}

// New returns a link that uses the client, for which Check returned nil. The client
// stays the caller's: Close does not close it.
func New(client redis.UniversalClient, config Config) *Link {
	l := &Link{
		config:   config,
		client:   client,
		prompt:   keepsDeadlines(client),
		free:     maxInFlight,
		failures: map[string]uint64{},
	}
	l.work.L = &l.mu
	l.breaker.onChange, l.breaker.onOpen = l.changed, l.opened
	for range maxInFlight {
		go l.loop()
	}
	return l
}

// Close waits for a probe that is under way, and ends the link's goroutines. One that a
// client does not come back to ends when it does. All requests must have been answered,
// and none may be sent from now on.
func (l *Link) Close() {
	l.countMu.Lock()
	l.stopped = true
	if l.probes != nil {
		l.probes.Stop()
	}
	l.countMu.Unlock()
	l.probing.Wait()
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.work.Broadcast()
	l.pending.Close()
}

// Prompt says whether the client comes back when a command's context ends, so that
// a caller may send a command on its own goroutine.
func (l *Link) Prompt() bool { return l.prompt }

// keepsDeadlines says whether the client is known to come back when a command's
// context ends, if its hooks do. A ClusterClient is not: it asks a node what
// commands there are under a context of its own.
func keepsDeadlines(client redis.UniversalClient) bool {
	c, ok := client.(*redis.Client)
	if !ok {
		return false
	}
	o := c.Options()
	return o.ContextTimeoutEnabled &&
		o.ReadTimeout >= 0 && o.WriteTimeout >= 0 && // else none is kept
		o.Limiter == nil && o.OnConnect == nil && // they may do anything
		o.CredentialsProvider == nil && o.CredentialsProviderContext == nil && o.StreamingCredentialsProvider == nil
}

// Allowed returns how long a command that moves so many bytes may take: the timeout,
// and 64 ms for each MiB. Redis copies an outcome several times, which takes a small
// machine some 20 ms for each MiB; the timeout is meant for a server that hangs, and
// must not take a busy one for it.
func Allowed(timeout time.Duration, bytes int) time.Duration {
	return timeout + time.Duration(bytes>>14)*time.Millisecond
}

// Do sends a command, even when the breaker is open, and waits for its reply. ctx is as
// in NewRequest, and the error as in Result.
func (l *Link) Do(ctx context.Context, command protocol.Command) (any, error) {
	return l.wait(l.NewRequest(ctx, command, l.Must()))
}

// wait sends r and waits for its answer.
func (l *Link) wait(r *Request) (any, error) {
	done := make(chan struct{})
	r.Then = func() { close(done) }
	l.Send(r)
	<-done
	return l.Result(r)
}

// Result returns the reply to r, or an error that wraps coalesce.ErrUnavailable and the
// cause. It must be called once, after r has been answered: it tells the breaker,
// counts a failure, and calls OnCommand. The breaker comes first, because a half-open
// one lets nobody else try until it is told, and OnCommand comes last, because it may
// panic.
func (l *Link) Result(r *Request) (any, error) {
	err := r.err
	r.permit(serverFailure(err))
	kind := ""
	if err != nil {
		kind = FailureKind(err)
		l.Count(kind)
	}
	l.config.OnCommand(r.command.Step(), time.Since(r.sent), kind)
	if err != nil {
		if cluster, ok := l.client.(*redis.ClusterClient); ok {
			// A master that is gone does not make the client look for its
			// successor. It does so in the background, and not too often.
			cluster.ReloadState(r.ctx)
		}
		return nil, fmt.Errorf("%w (%s): %w", coalesce.ErrUnavailable, kind, err)
	}
	return r.reply, nil
}

// Load stores every script at the server. Where that fails, the first use of each script
// stores it.
func (l *Link) Load(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.config.Timeout)
	defer cancel()
	_ = protocol.Load(ctx, l.client)
}

// Count counts a failure of the kind that has no Request, such as a lost subscription.
func (l *Link) Count(kind string) {
	l.countMu.Lock()
	l.failures[kind]++
	l.countMu.Unlock()
}

// Counts returns how many failures have been counted since New.
func (l *Link) Counts() (total uint64, byKind map[string]uint64) {
	l.countMu.Lock()
	defer l.countMu.Unlock()
	byKind = make(map[string]uint64, len(l.failures))
	for kind, n := range l.failures {
		byKind[kind] = n
		total += n
	}
	return total, byKind
}
