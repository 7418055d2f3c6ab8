package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/proof/history"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// The settings are short, so that many faults fit into a run.
const (
	leaseTTL      = 600 * time.Millisecond
	redisTimeout  = 150 * time.Millisecond
	flightTimeout = 5 * time.Second
	maxTakeovers  = 2
	grace         = time.Second // of a replica after SIGTERM
	clusterReload = 5 * time.Second
)

// groupName is the name of each replica's one Group.
const groupName = "chaos"

// workerVariable holds a workerConfig in the environment of a replica's
// process.
const workerVariable = "FLEETCALL_CHAOS_REPLICA"

// workerConfig is what a replica's process is told.
type workerConfig struct {
	Process   string   // its name in the history
	Dir       string   // the history's
	Commands  string   // address of Redis for commands
	Cluster   []string // addresses of a Cluster instead; nil: one server
	Sentinels []string // addresses of sentinels instead; nil: one server
	Messages  string   // address of Redis for the subscription
	Namespace string
	MaxAge    time.Duration
	Prefix    string // of its keys
	Callers   int
	Seed      uint64
	Broken    Broken
}

// ServeReplica runs a replica, or a campaign on hosts, and ends the process with it, if this
// process was started to be one. A program that runs campaigns calls it first.
func ServeReplica() {
	if text := os.Getenv(hostsVariable); text != "" && os.Getenv(workerVariable) == "" {
		if err := serveHosts(text); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	text := os.Getenv(workerVariable)
	if text == "" {
		return
	}
	var config workerConfig
	err := json.Unmarshal([]byte(text), &config)
	if err == nil {
		err = serve(config)
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// worker is one replica: a group, and callers that use it.
type worker struct {
	config   workerConfig
	recorder *recorder
	group    coalesce.Group[string]
	calls    atomic.Uint64
}

func serve(config workerConfig) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	writer, err := history.Open(config.Dir, config.Process)
	if err != nil {
		return err
	}
	defer func() { _ = writer.Close() }()
	w := &worker{config: config, recorder: newRecorder(writer, config.Process)}
	w.recorder.write(history.Record{Kind: history.Begin, Settings: &history.Settings{
		LeaseTTL: leaseTTL, FlightTimeout: flightTimeout, RedisTimeout: redisTimeout,
		MaxAge: config.MaxAge, MaxTakeovers: maxTakeovers,
	}})
	redis.SetLogger(silence{})
	client := newClient(config)
	fleet, err := w.open(client)
	if err != nil {
		return err
	}
	fmt.Println(readyText, time.Now().Unix())

	var callers sync.WaitGroup
	for i := range config.Callers {
		callers.Go(func() { w.call(ctx, stream(config.Seed, fmt.Sprintf("%s caller %d", config.Process, i))) })
	}
	<-ctx.Done()
	w.recorder.write(history.Record{Kind: history.Closing})
	closing, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	_ = fleet.Close(closing) // its error says that the grace period was too short: a call's outcome says so too
	callers.Wait()
	if err := client.Close(); err != nil {
		return err
	}
	w.recorder.flush()
	w.recorder.write(history.Record{Kind: history.Exit})
	return nil
}

// open makes the worker's group, in a fleet of its own.
func (w *worker) open(client redis.UniversalClient) (*distributed.Fleet, error) {
	fleet, err := distributed.Open(client,
		distributed.WithNamespace(w.config.Namespace), distributed.WithReplicaID(w.config.Process),
		distributed.WithLeaseTTL(leaseTTL), distributed.WithFlightTimeout(flightTimeout),
		distributed.WithRedisTimeout(redisTimeout), distributed.WithMaxTakeovers(maxTakeovers),
		distributed.WithMaxAge(w.config.MaxAge), distributed.WithInlineLimit(inlineLimit),
		distributed.WithPayloadLimit(payloadLimit), distributed.WithHooks(w.recorder),
		distributed.WithLogger(slog.New(slog.DiscardHandler))) // the history says more
	if err != nil {
		return nil, err
	}
	group, err := distributed.NewGroup[string](fleet, groupName)
	if err != nil {
		return nil, err
	}
	w.group = w.config.Broken.wrap(group, w.recorder)
	return fleet, nil
}

// call goes through a caller's steps until ctx ends.
func (w *worker) call(ctx context.Context, random *rand.Rand) {
	var calls sync.WaitGroup
	defer calls.Wait()
	for {
		s := nextStep(random, w.config.Prefix)
		select {
		case <-ctx.Done():
			return
		case <-time.After(s.pause):
		}
		switch {
		case s.forget:
			w.forget(s.key)
			continue
		case s.keys != nil:
			w.doMany(s.keys, s.calls[0])
			continue
		}
		for _, p := range s.calls {
			calls.Go(func() { w.do(s.key, p) })
		}
		calls.Wait()
	}
}

// do makes one call and writes down how it went.
func (w *worker) do(key string, p plan) {
	n := w.calls.Add(1)
	record := history.Record{Kind: history.Called, Key: key, Call: fmt.Sprintf("%s/c%d", w.config.Process, n)}
	flight := ""
	ctx, deadline, cancel := p.context(context.WithValue(context.Background(), flightKey{}, &flight))
	defer cancel()
	record.Deadline = deadline
	w.recorder.write(record)
	value, role, err := w.safely(ctx, key, p.function)
	if w.config.Broken == Swallow && n%20 == 0 {
		return
	}
	record.Kind, record.Deadline = history.Returned, 0
	record.Flight, record.Role, record.Error = flight, role.String(), message(err)
	record.Outcome, record.Execution = returned(ctx, key, value, err)
	w.recorder.write(record)
}

// safely makes a panic of the function an error.
func (w *worker) safely(ctx context.Context, key string, function behaviour) (value string, role coalesce.Role, err error) {
	defer func() {
		if panicked, ok := recover().(*coalesce.PanicError); ok {
			err = panicked
		}
	}()
	return w.group.Do(ctx, key, func(ctx context.Context) (string, error) {
		execution, _ := ctx.Value(executionKey{}).(string)
		return function.run(ctx, execution)
	})
}

func (w *worker) forget(key string) {
	record := history.Record{Kind: history.Forget, Key: key, Call: fmt.Sprintf("%s/f%d", w.config.Process, w.calls.Add(1))}
	w.recorder.write(record)
	ctx, cancel := context.WithTimeout(context.Background(), flightTimeout)
	defer cancel()
	err := w.group.Forget(ctx, key)
	record.Kind, record.Error = history.Forgotten, message(err)
	w.recorder.write(record)
}

// client is a Redis client whose subscriptions have a way of their own, so that
// a fault can hit messages and spare commands.
type client struct {
	*redis.Client
	messages *redis.Client
}

// newClient makes a client with the options that the fleetcall program uses.
func newClient(config workerConfig) redis.UniversalClient {
	if config.Cluster != nil {
		return redis.NewClusterClient(&redis.ClusterOptions{
			Addrs:       config.Cluster,
			DialTimeout: redisTimeout, ReadTimeout: redisTimeout, WriteTimeout: redisTimeout, PoolTimeout: redisTimeout,
			MaxRetries: -1, DialerRetries: 1, PoolSize: 64,
			ContextTimeoutEnabled: true, DisableIdentity: true,
			ClusterStateReloadInterval: clusterReload,
		})
	}
	if config.Sentinels != nil {
		return redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: redisrig.SentinelMaster, SentinelAddrs: config.Sentinels,
			DialTimeout: redisTimeout, ReadTimeout: redisTimeout, WriteTimeout: redisTimeout, PoolTimeout: redisTimeout,
			MaxRetries: -1, DialerRetries: 1, PoolSize: 64,
			ContextTimeoutEnabled: true, DisableIdentity: true,
		})
	}
	options := func(address string) *redis.Options {
		return &redis.Options{
			Addr:        address,
			DialTimeout: redisTimeout, ReadTimeout: redisTimeout, WriteTimeout: redisTimeout, PoolTimeout: redisTimeout,
			MaxRetries: -1, DialerRetries: 1, PoolSize: 64,
			ContextTimeoutEnabled: true, DisableIdentity: true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		}
	}
	return client{redis.NewClient(options(config.Commands)), redis.NewClient(options(config.Messages))}
}

// Subscribe takes the messages' way.
func (c client) Subscribe(ctx context.Context, channels ...string) *redis.PubSub {
	return c.messages.Subscribe(ctx, channels...)
}

// Close closes both ways.
func (c client) Close() error { return errors.Join(c.messages.Close(), c.Client.Close()) }
