package distributed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"

	"github.com/fleetcall/fleetcall/coalesce"
)

// breakerWindow is how long the breaker keeps callers from Redis after a
// failure, before it lets one of them try.
const breakerWindow = time.Second

// probeAfter is how long after a failure Redis is probed, if no caller has tried by
// then.
const probeAfter = 2 * breakerWindow

// errBreakerOpen is why a command was not sent.
var errBreakerOpen = fmt.Errorf("%w: its breaker is open", coalesce.ErrUnavailable)

// errUnconfirmed is why a follower gives up waiting for its subscription.
var errUnconfirmed = fmt.Errorf("%w: a subscription is not confirmed", coalesce.ErrUnavailable)

// errNotSent is why a command had no reply that waited for its turn for the
// whole Redis timeout.
var errNotSent = fmt.Errorf("not sent: %w", context.DeadlineExceeded)

// commander sends the scripts to Redis, each within the Redis timeout, and
// counts what fails.
type commander struct {
	client redis.UniversalClient
	set    *settings
	sender *sender
	// prompt: the client comes back when a command's context ends.
	prompt  bool
	breaker *gobreaker.TwoStepCircuitBreaker[any]
	probing sync.WaitGroup

	mu       sync.Mutex
	failures map[string]uint64 // by kind
	probes   *time.Timer       // nil until the breaker has opened
	closed   bool
}

func newCommander(client redis.UniversalClient, s *settings, onOpen func()) *commander {
	c := &commander{
		client:   client,
		set:      s,
		sender:   newSender(client, s.redisTimeout),
		prompt:   keepsDeadlines(client),
		failures: map[string]uint64{},
	}
	c.breaker = gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
		MaxRequests: 1,
		Timeout:     breakerWindow,
		// One failure opens it: a second one would cost a caller a
		// second Redis timeout in the same window.
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 1 },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			// The breaker is locked here, and a log handler or an
			// observer may do anything.
			go func() {
				defer s.survive()
				level := slog.LevelWarn
				switch {
				case to == gobreaker.StateClosed:
					level = slog.LevelInfo
				case from != gobreaker.StateClosed: // a probe, or its failure
					level = slog.LevelDebug
				}
				s.log.Log(context.Background(), level, "fleetcall: Redis breaker changed",
					"replica", s.replicaID, "from", from.String(), "to", to.String())
				if s.observer != nil {
					s.observer.Breaker(from.String(), to.String())
				}
			}()
			if to == gobreaker.StateOpen {
				c.probeLater()
				onOpen()
			}
		},
	})
	return c
}

// probeLater sees to it that a breaker that has opened closes, though nobody
// calls.
func (c *commander) probeLater() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
	case c.probes == nil:
		c.probes = time.AfterFunc(probeAfter, c.probe)
	default:
		c.probes.Reset(probeAfter)
	}
}

// probe tries Redis, unless a caller has. Its success closes the breaker; its
// failure leaves it as it is, for callers: on a Cluster, their keys may be those of a
// server that is well.
func (c *commander) probe() {
	if c.breaker.State() != gobreaker.StateHalfOpen { // takes a lock under which it takes c.mu
		return
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.probing.Add(1)
	c.mu.Unlock()
	defer c.probing.Done()
	defer c.set.survive()
	r := c.request(context.Background(), 0, probeScript,
		probeScript.evalsha([]string{probeKey(c.set.namespace)}, breakerWindow.Milliseconds()))
	r.breaker = func(err error) {
		if err != nil {
			c.probeLater()
		} else if done, err := c.breaker.Allow(); err == nil {
			done(nil)
		}
	}
	_, _ = c.wait(r)
}

// survive is deferred where there is no call: an observer's or a log handler's panic
// must not end the program.
func (s *settings) survive() {
	value := recover()
	if value == nil {
		return
	}
	defer func() { _ = recover() }() // of the log handler again
	s.log.Error("fleetcall: panic beside all calls", "replica", s.replicaID, "error", &coalesce.PanicError{Value: value, Stack: debug.Stack()})
}

// close waits for what the breaker has under way.
func (c *commander) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.probing.Wait()
	c.sender.close()
}

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

// may asks the breaker for a caller who would rather do without Redis than wait
// for it. Its done is told how the command ended.
func (c *commander) may() (done func(error), err error) {
	if done, err = c.breaker.Allow(); err != nil {
		return nil, errBreakerOpen
	}
	return done, nil
}

// must is for those who depend on the reply, or nobody waits for.
func (c *commander) must() (done func(error)) {
	done, err := c.breaker.Allow()
	if err != nil {
		return func(error) {}
	}
	return done
}

// mustRun sends a script even when the breaker is open.
func (c *commander) mustRun(ctx context.Context, script *script, keys []string, args ...any) (any, error) {
	return c.mustFetch(ctx, 0, script, keys, args...)
}

// mustFetch is mustRun for a command that moves about so many bytes.
func (c *commander) mustFetch(ctx context.Context, bytes int, script *script, keys []string, args ...any) (any, error) {
	r := c.request(ctx, bytes, script, script.evalsha(keys, args...))
	r.breaker = c.must()
	return c.wait(r)
}

// wait sends r and waits for its answer.
func (c *commander) wait(r *request) (any, error) {
	done := make(chan struct{})
	r.then = func() { close(done) }
	c.sender.send(r)
	<-done
	return c.result(r)
}

// request returns one that moves about so many bytes, and is not yet sent. Its
// caller's leaving does not stop it: it may take the lease, and somebody must see
// the reply.
func (c *commander) request(ctx context.Context, bytes int, script *script, args []any) *request {
	return &request{script: script, args: args, bytes: bytes, ctx: ctx}
}

// allowed is how long a command may take that moves so many bytes. Redis copies
// an outcome several times, which takes a small machine some 20 ms for each MiB;
// a timeout that is meant for a hang must not call that one.
func allowed(timeout time.Duration, bytes int) time.Duration {
	return timeout + time.Duration(bytes>>14)*time.Millisecond
}

// serverFailure leaves out what is one slot's trouble: while a slot moves to
// another server of a Cluster, its keys cannot be used together.
func serverFailure(err error) error {
	if redis.IsTryAgainError(err) {
		return nil
	}
	return err
}

// result returns what became of r, which has been answered, and counts it, once.
// The breaker comes first, which waits for its probe's end, and the observer last,
// which may panic.
func (c *commander) result(r *request) (any, error) {
	err := r.err
	r.breaker(serverFailure(err))
	kind := ""
	if err != nil {
		kind = failureKind(err)
		c.count(kind)
	}
	if c.set.observer != nil {
		c.set.observer.Command(Command{Step: r.script.step, Took: time.Since(r.began), Kind: kind})
	}
	if err != nil {
		if cluster, ok := c.client.(*redis.ClusterClient); ok {
			// A master that is gone does not make the client look for its
			// successor. It does so in the background, and not too often.
			cluster.ReloadState(r.ctx)
		}
		return nil, fmt.Errorf("%w (%s): %w", coalesce.ErrUnavailable, kind, err)
	}
	return r.reply, nil
}

// load stores every script at the server, so that the first use of each costs
// one round trip too. What fails here is made up for when a script is sent.
func (c *commander) load(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.set.redisTimeout)
	defer cancel()
	for _, script := range allScripts {
		if script.Load(ctx, c.client).Err() != nil {
			return
		}
	}
}

func (c *commander) count(kind string) {
	c.mu.Lock()
	c.failures[kind]++
	c.mu.Unlock()
}

func (c *commander) counts() (total uint64, byKind map[string]uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	byKind = make(map[string]uint64, len(c.failures))
	for kind, n := range c.failures {
		byKind[kind] = n
		total += n
	}
	return total, byKind
}

// FailureKinds are the kinds of Redis' failures, all of them: the keys of
// TierStats.RedisErrorsBy, and Command.Kind. "breaker" is the cause of a
// fallback alone: nothing was sent.
func FailureKinds() []string {
	return []string{"timeout", "connection", "subscription", "pool", "oom", "readonly", "loading", "cluster", "auth", "maxclients", "reply"}
}

// FallbackCauses are the values of Run.Cause and Flight.Cause, all of them.
func FallbackCauses() []string {
	return append(FailureKinds(), "breaker", causeTooLarge, causeGarbage)
}

func failureKind(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, errBreakerOpen):
		return "breaker"
	case errors.Is(err, errUnconfirmed):
		return "subscription"
	case errors.Is(err, redis.ErrPoolTimeout):
		return "pool"
	case redis.IsOOMError(err):
		return "oom"
	case redis.IsReadOnlyError(err):
		return "readonly"
	case redis.IsLoadingError(err):
		return "loading"
	case redis.IsClusterDownError(err), redis.IsMasterDownError(err), redis.IsTryAgainError(err):
		return "cluster"
	case redis.IsAuthError(err), redis.IsPermissionError(err):
		return "auth"
	case redis.IsMaxClientsError(err):
		return "maxclients"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	var reply redis.Error
	if errors.As(err, &reply) {
		return "reply"
	}
	return "connection"
}

// neverSent tells a command that cannot have run from one that may have: its
// connection was never made, or Redis refused it.
func neverSent(err error) bool {
	var reply redis.Error
	if errors.Is(err, errBreakerOpen) || errors.Is(err, errNotSent) || errors.Is(err, redis.ErrPoolTimeout) || errors.As(err, &reply) {
		return true
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// Replies of the scripts are lists whose first element is a word. A reply of
// another shape can come only from a foreign script under the same SHA, or a
// proxy: it is an error like any other.

func words(reply any, err error) (string, []any, error) {
	if err != nil {
		return "", nil, err
	}
	list, _ := reply.([]any)
	if len(list) == 0 {
		return "", nil, fmt.Errorf("%w: unexpected reply %T", coalesce.ErrUnavailable, reply)
	}
	word, _ := list[0].(string)
	return word, list[1:], nil
}

func text(list []any, i int) string {
	if i >= len(list) {
		return ""
	}
	s, _ := list[i].(string)
	return s
}

func number(list []any, i int) int64 {
	if i >= len(list) {
		return 0
	}
	n, _ := list[i].(int64)
	return n
}
