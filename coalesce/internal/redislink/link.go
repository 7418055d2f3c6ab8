// Package redislink sends the steps of the protocol to Redis and returns the replies.
// It sends commands that come together in one round trip, gives up those that are not
// answered in time, and keeps callers from a server that does not answer.
package redislink

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/timers"
)

// Config is what a Link needs to know, and the functions that it calls. None of them
// may be nil.
type Config struct {
	Namespace string        // starts the names of the keys that probes write
	Timeout   time.Duration // of a small command, from when it is sent
	// OnCommand is called by Result with the command's step, how long it took, and the
	// kind of its failure, "" for none. It may panic: the panic reaches Result's
	// caller.
	OnCommand func(step string, took time.Duration, kind string)
	// OnChange is called for each change of a server's health. The calls come one after
	// the other, on a goroutine that belongs to no caller. It may panic.
	OnChange func(Change)
	// OnUp is called when a server is up again. It must not wait.
	OnUp func()
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
	pending timers.List // of the requests that were sent and are not answered
	probing sync.WaitGroup
	changes changes

	only    *server // nil on a Redis Cluster
	cluster *redis.ClusterClient
	located atomic.Bool // the client of a Cluster knows where the slots are

	mu      sync.RWMutex
	servers map[string]*server // by address
	sweep   *time.Timer        // nil without a Cluster
	closed  bool

	countMu  sync.Mutex
	failures map[string]uint64 // by kind; guarded by countMu
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
		servers:  map[string]*server{},
		failures: map[string]uint64{},
	}
	l.changes.told = l.changed
	first := l.newServer(firstAddress(client))
	l.servers[first.address] = first
	if cluster, ok := client.(*redis.ClusterClient); ok {
		l.cluster = cluster
		l.sweep = time.AfterFunc(sweepAfter, l.dropUnused)
	} else {
		l.only = first
	}
	return l
}

// Close waits for the probes that are under way, and ends the link's goroutines. One
// that a client does not come back to ends when it does. All requests must have been
// answered, and none may be sent from now on.
func (l *Link) Close() {
	l.mu.Lock()
	l.closed = true
	if l.sweep != nil {
		l.sweep.Stop()
	}
	for _, s := range l.servers {
		s.close()
	}
	l.mu.Unlock()
	l.probing.Wait()
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
// and 64 ms for each MiB. The timeout is meant for a server that hangs, and must not take
// a busy one, or a link of 16 MiB a second, for it.
func Allowed(timeout time.Duration, bytes int) time.Duration {
	return timeout + time.Duration(bytes>>14)*time.Millisecond
}

// Do sends a command and waits for its reply. ctx is as in NewRequest, and the error as
// in Result.
func (l *Link) Do(ctx context.Context, command protocol.Command) (any, error) {
	r := l.NewRequest(ctx, command)
	done := make(chan struct{})
	r.Then = func() { close(done) }
	l.Send(r)
	<-done
	return l.Result(r)
}

// Result returns the reply to r, or an error that wraps coalesce.ErrUnavailable and the
// cause. It must be called once, after r has been answered: it counts a failure, and
// calls OnCommand last, because that may panic. Of a command that was not sent, because
// its server is down, nothing is counted or told.
func (l *Link) Result(r *Request) (any, error) {
	err := r.err
	if err == ErrServerDown {
		return nil, err
	}
	kind := ""
	if err != nil {
		kind = FailureKind(err)
		l.Count(kind)
	}
	l.config.OnCommand(r.command.Step(), time.Since(r.asked), kind)
	if err != nil {
		return nil, fmt.Errorf("%w (%s): %w", coalesce.ErrUnavailable, kind, err)
	}
	return r.reply, nil
}

// Time asks Redis for its time, in µs since 1970, beside all other commands. It returns
// also when it asked, and when it had the reply.
func (l *Link) Time(ctx context.Context) (told int64, sent, received time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.config.Timeout)
	defer cancel()
	var now time.Time
	sent = time.Now()
	if failed := process(func() { now, err = l.client.Time(ctx).Result() }); failed != nil {
		err = failed
	}
	return now.UnixMicro(), sent, time.Now(), err
}

// Clustered asks the server whether it is one of a Cluster. HELLO tells that without any
// right, and, sent without a version, changes nothing.
func (l *Link) Clustered(ctx context.Context) (clustered bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.config.Timeout)
	defer cancel()
	var reply any
	if failed := process(func() { reply, err = l.client.Do(ctx, "hello").Result() }); failed != nil {
		err = failed
	}
	switch reply := reply.(type) {
	case map[any]any:
		return reply["mode"] == "cluster", err
	case []any: // of a connection that speaks RESP2
		for i := 0; i+1 < len(reply); i += 2 {
			if reply[i] == "mode" {
				return reply[i+1] == "cluster", err
			}
		}
	}
	return false, err
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
