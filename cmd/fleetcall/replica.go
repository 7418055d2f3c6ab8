package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"golang.org/x/net/netutil"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/local"
	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/rollcall"
)

const (
	// closeLimit is how long each part may take to close after the requests have
	// ended.
	closeLimit = 2 * time.Second
	// joinLimit is how long a replica waits until the other replicas know it. It
	// takes requests after that time in any case, so that it also starts without Redis.
	joinLimit = time.Second
	// writeSlack is how long the server may take to write an answer.
	writeSlack = 10 * time.Second
)

// replica is a running server with all of its parts.
type replica struct {
	set      *serveCmd
	log      *slog.Logger // its lines have the replica's id
	plain    *slog.Logger // its lines do not: for parts that add the id themselves
	listener net.Listener
	id       string
	mode     string
	database string // its kind, for the log
	store    store
	ready    *readiness
	redis    redis.UniversalClient                 // nil without Redis
	fleet    *distributed.Fleet                    // nil unless the mode is distributed
	local    *local.Group[string, product.Product] // nil unless the mode is local
	rollcall *rollcall.Member                      // nil without Redis
	leases   *leases                               // nil without a distributed tier
	server   *api.Server
	profiles *profiles // nil unless asked for
	metrics  *metrics
	traces   *traces // nil unless asked for
}

// newReplica listens and makes the parts of a replica. It is no error when the
// database or Redis is down: the replica starts, and uses them when they are back.
func newReplica(ctx context.Context, set *serveCmd, log *slog.Logger) (r *replica, err error) {
	plain := slog.New(api.RequestLog{Handler: log.Handler()})
	r = &replica{set: set, log: plain, plain: plain, mode: set.Mode}
	if r.mode == "" {
		r.mode = modeLocal
		if set.RedisURL != "" {
			r.mode = modeDistributed
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if err := r.listen(ctx); err != nil {
		return r, err
	}
	if err := r.observe(ctx); err != nil {
		return r, err
	}
	if err := r.openStore(ctx); err != nil {
		return r, err
	}
	if set.RedisURL != "" {
		if err := r.connectRedis(ctx); err != nil {
			return r, err
		}
	}
	group, err := r.group()
	if err != nil {
		return r, err
	}
	if r.server, err = api.New(r.config(group)); err != nil {
		return r, err
	}
	r.metrics.registry.MustRegister(batches(r.server.BatchTotals))
	if r.rollcall != nil {
		r.rollcall.Start(r.server.Answer)
	}
	return r, nil
}

// listen opens the replica's port. The address is also the replica's name, unless the
// settings have one.
func (r *replica) listen(ctx context.Context) (err error) {
	r.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", r.set.Listen)
	if err != nil {
		return fmt.Errorf("fleetcall: listening on %s: %w", r.set.Listen, err)
	}
	if r.id = r.set.ReplicaID; r.id == "" {
		if r.id, err = defaultID(r.listener.Addr()); err != nil {
			return err
		}
	}
	r.listener = netutil.LimitListener(r.listener, r.set.MaxConns)
	r.log = r.plain.With("replica", r.id)
	return nil
}

// observe prepares traces, metrics and profiles.
func (r *replica) observe(ctx context.Context) (err error) {
	if r.traces, err = newTraces(ctx, r.id, r.log); err != nil {
		return err
	}
	if r.traces != nil {
		r.plain = slog.New(traceLog{r.plain.Handler()})
		r.log = r.plain.With("replica", r.id)
	}
	r.metrics = newMetrics(r.id, r.mode)
	if r.set.PprofAddr != "" {
		r.profiles, err = startProfiles(ctx, r.set.PprofAddr, r.log)
	}
	return err
}

func (r *replica) openStore(ctx context.Context) (err error) {
	var tracer pgx.QueryTracer
	if r.traces != nil {
		tracer = r.traces.database()
	}
	r.store, r.database, err = openStore(ctx, r.set.DatabaseURL, product.PoolConfig{
		Min: r.set.DBPoolMin, Max: r.set.DBPoolMax, Wait: r.set.DBPoolWait, Delay: r.set.QueryDelay,
	}, tracer)
	if err != nil {
		return err
	}
	r.ready = newReadiness(r.store.Check, r.log)
	r.metrics.registry.MustRegister(databaseOf(r.store))
	return nil
}

// config returns the settings of the replica's server.
func (r *replica) config(group coalesce.Group[product.Product]) api.Config {
	config := api.Config{
		Group:      group,
		Store:      r.store,
		Mode:       r.mode,
		Replica:    r.id,
		Tiers:      r.tiers,
		ResetTiers: r.resetTiers,
		Redis:      r.redisStatus,
		Readiness:  r.ready.load,
		Metrics:    r.metrics.handler(),
		Requested:  r.requested,
		AdminToken: r.set.AdminToken,
		// The longest request has waited for a leader that died, then waits for a
		// connection, and then for its own query.
		WriteTimeout: r.set.DBPoolWait + r.set.QueryDelay + r.set.FlightTimeout + writeSlack,
		Logger:       r.log,
	}
	if r.rollcall != nil {
		config.Fleet = r.rollcall
		config.Share = func(topic string, interval time.Duration, produce func(context.Context) ([]byte, error)) func(context.Context) ([]byte, error) {
			return r.rollcall.Share(topic, interval, produce).Next
		}
	}
	if r.traces != nil {
		config.Around = r.traces.around
	}
	if r.leases != nil {
		config.Leases = r.leases.list
	}
	return config
}

func defaultID(addr net.Addr) (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("fleetcall: naming this replica: %w; set REPLICA_ID", err)
	}
	_, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return "", fmt.Errorf("fleetcall: naming this replica: %w", err)
	}
	return net.JoinHostPort(host, port), nil
}

func (r *replica) connectRedis(ctx context.Context) error {
	client, kind, err := openRedis(ctx, r.set.RedisURL, r.set.RedisTimeout)
	if err != nil {
		return err
	}
	r.log.Debug("Redis is configured", "kind", kind)
	var observe func(error)
	if r.mode != modeDistributed { // there the Fleet watches each server, and logs what it finds
		watch := &redisWatch{log: r.log}
		client.AddHook(watch)
		observe = watch.subscribed
	}
	if r.traces != nil {
		if err := r.traces.redis(client); err != nil {
			return errors.Join(err, client.Close())
		}
	}
	r.redis = client
	r.rollcall = rollcall.New(rollcall.Config{
		Client:    client,
		Namespace: r.set.Namespace,
		Timeout:   r.set.RedisTimeout,
		Observe:   observe,
	})
	return nil
}

// run serves until ctx ends, and then closes the replica.
func (r *replica) run(ctx context.Context) error {
	checking, stopChecking := context.WithCancel(ctx)
	var checks sync.WaitGroup
	checks.Go(func() { r.ready.run(checking) })
	defer checks.Wait()
	defer stopChecking()
	r.await(ctx)
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(r.listener) }()
	r.plain.Info(r.ready.announce(), "address", r.listener.Addr().String(), "replica", r.id, "mode", r.mode,
		"database", r.database, "redis", string(r.redisStatus(ctx)), "version", buildVersion())
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		r.log.Info("stopping", "delay", r.set.ShutdownDelay, "grace", r.set.Grace)
		r.server.Drain()
		select {
		case <-time.After(r.set.ShutdownDelay):
		case err = <-served: // Serve has failed
			return errors.Join(err, r.close())
		}
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.set.Grace)
		defer cancel()
		err = r.server.Shutdown(grace)
		err = errors.Join(err, <-served)
	}
	err = errors.Join(err, r.close())
	if err == nil {
		r.log.Info("stopped")
	}
	return err
}

// await waits until the database has been asked and the other replicas know this one,
// but no longer than joinLimit.
func (r *replica) await(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	select {
	case <-r.ready.checked:
	case <-ctx.Done():
	}
	if r.rollcall == nil {
		return
	}
	select {
	case <-r.rollcall.Ready():
	case <-ctx.Done():
	}
}

// close closes the parts that exist. A part is closed before those that it uses.
func (r *replica) close() error {
	var errs []error
	if r.listener != nil {
		// Serve has closed it already, if it was called.
		if err := r.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if r.profiles != nil {
		errs = append(errs, r.profiles.close())
	}
	if r.fleet != nil {
		errs = append(errs, r.closeOnRedis("distributed tier", r.fleet.Close))
	}
	if r.rollcall != nil {
		errs = append(errs, r.closeOnRedis("rollcall", r.rollcall.Close))
	}
	if r.redis != nil {
		errs = append(errs, r.redis.Close())
	}
	if r.store != nil {
		errs = append(errs, closeStore(r.store))
	}
	if r.traces != nil { // last: closing the others may have ended spans
		ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
		defer cancel()
		r.traces.close(ctx)
	}
	return errors.Join(errs...)
}

// closeOnRedis closes a part that uses Redis within closeLimit. It is no failure of this
// replica when Redis does not answer in time: every request has its answer, and the other
// replicas learn of its end when its leases run out.
func (r *replica) closeOnRedis(part string, closePart func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	err := closePart(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		r.log.Warn("stopped without waiting for Redis", "part", part)
		return nil
	}
	return err
}

// closeStore closes the database. It does not wait for a query that hangs, because the
// process is about to end.
func closeStore(s store) error {
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	limit := time.NewTimer(closeLimit)
	defer limit.Stop()
	select {
	case err := <-closed:
		return err
	case <-limit.C:
		return errors.New("fleetcall: closing the database: a query still runs")
	}
}
