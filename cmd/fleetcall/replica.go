package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"golang.org/x/net/netutil"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalesceprom"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/local"
	"github.com/fleetcall/fleetcall/internal/rollcall"
	"github.com/fleetcall/fleetcall/internal/product"
)

const (
	// closeLimit is how long each part may take to close once the requests
	// have ended.
	closeLimit = 2 * time.Second
	// joinLimit is how long a replica waits to be part of the fleet before it
	// takes requests; without Redis it takes them all the same.
	joinLimit = time.Second
	// writeSlack is what an answer may take to be written.
	writeSlack = 10 * time.Second
)

// replica is a running server and everything it is made of.
type replica struct {
	set      *serveCmd
	log      *slog.Logger // says which replica it is
	plain    *slog.Logger // does not
	listener net.Listener
	id       string
	mode     string
	database string // its kind
	store    store
	redis    redis.UniversalClient // nil without Redis
	watch    *redisWatch           // nil without Redis
	shared   *distributed.Group[product.Product]
	inside   *local.Group[string, product.Product]
	census   *rollcall.Member // nil without Redis
	leases   *leases        // nil without a distributed tier
	server   *api.Server
	profiles *profiles // nil unless asked for
	metrics  *metrics
	traces   *traces // nil unless asked for
}

// newReplica listens and puts a replica together. A database or Redis that is
// down is no error.
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
	r.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", set.Listen)
	if err != nil {
		return r, fmt.Errorf("fleetcall: listening on %s: %w", set.Listen, err)
	}
	if r.id = set.ReplicaID; r.id == "" {
		if r.id, err = defaultID(r.listener.Addr()); err != nil {
			return r, err
		}
	}
	r.listener = netutil.LimitListener(r.listener, set.MaxConns)
	r.log = r.plain.With("replica", r.id)
	if r.traces, err = newTraces(ctx, r.id, r.log); err != nil {
		return r, err
	}
	if r.traces != nil {
		r.plain = slog.New(traceLog{r.plain.Handler()})
		r.log = r.plain.With("replica", r.id)
	}
	r.metrics = newMetrics(r.id, r.mode)
	if set.PprofAddr != "" {
		if r.profiles, err = startProfiles(ctx, set.PprofAddr, r.log); err != nil {
			return r, err
		}
	}
	var tracer pgx.QueryTracer
	if r.traces != nil {
		tracer = r.traces.database()
	}
	r.store, r.database, err = openStore(ctx, set.DatabaseURL, product.PoolConfig{
		Min: set.DBPoolMin, Max: set.DBPoolMax, Wait: set.DBPoolWait, Delay: set.QueryDelay,
	}, tracer)
	if err != nil {
		return r, err
	}
	r.metrics.registry.MustRegister(databaseOf(r.store))
	if set.RedisURL != "" {
		if err := r.connectRedis(); err != nil {
			return r, err
		}
	}
	group, err := r.group()
	if err != nil {
		return r, err
	}
	config := api.Config{
		Group:      group,
		Store:      r.store,
		Mode:       r.mode,
		Replica:    r.id,
		Tiers:      r.tiers,
		ResetTiers: r.resetTiers,
		Redis:      r.redisStatus,
		Metrics:    r.metrics.handler(),
		Requested:  r.requested,
		AdminToken: set.AdminToken,
		// The longest request waits for a connection, then for the query; one
		// that took over from a dead leader has waited for that one before.
		WriteTimeout: set.DBPoolWait + set.QueryDelay + set.FlightTimeout + writeSlack,
		Logger:       r.log,
	}
	if r.census != nil {
		config.Fleet = r.census
	}
	if r.traces != nil {
		config.Around = r.traces.around
	}
	if r.leases != nil {
		config.Leases = r.leases.list
	}
	if r.server, err = api.New(config); err != nil {
		return r, err
	}
	if r.census != nil {
		r.census.Start(r.server.Answer)
	}
	return r, nil
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

func (r *replica) connectRedis() error {
	client, kind, err := newRedis(r.set.RedisURL, r.set.RedisTimeout)
	if err != nil {
		return err
	}
	r.log.Debug("Redis is configured", "kind", kind)
	r.watch = &redisWatch{log: r.log}
	client.AddHook(r.watch)
	if r.traces != nil {
		if err := r.traces.redis(client); err != nil {
			return errors.Join(err, client.Close())
		}
	}
	r.redis = client
	r.census = rollcall.New(rollcall.Config{
		Client:    client,
		Namespace: r.set.Namespace,
		Timeout:   r.set.RedisTimeout,
		Observe:   r.watch.subscribed,
	})
	return nil
}

// observers are told what the group does.
func (r *replica) observers() ([]distributed.Observer, error) {
	observers := []distributed.Observer{r.metrics.calls}
	if r.traces != nil {
		spans, err := r.traces.observer()
		if err != nil {
			return nil, err
		}
		observers = append(observers, spans)
	}
	return observers, nil
}

// requested is told of each request.
func (r *replica) requested(request api.Request) {
	r.metrics.requested(request)
	if r.traces != nil {
		r.traces.requested(request)
	}
}

// group returns the tier of the mode.
func (r *replica) group() (coalesce.Group[product.Product], error) {
	observers, err := r.observers()
	if err != nil {
		return nil, err
	}
	if r.mode != modeDistributed {
		var group coalesce.Group[product.Product] = coalesce.Off[product.Product]{}
		if r.mode == modeLocal {
			r.inside = &local.Group[string, product.Product]{}
			r.metrics.registry.MustRegister(coalesceprom.NewLocalCollector(r.inside.Totals))
			group = withFlightTimeout(local.Tier(r.inside), r.set.FlightTimeout)
		}
		for _, observer := range observers {
			group = distributed.Observed(group, observer)
		}
		return group, nil
	}
	r.leases = newLeases(r.set.LeaseTTL)
	options := []distributed.Option{
		distributed.WithNamespace(r.set.Namespace),
		distributed.WithLeaseTTL(r.set.LeaseTTL),
		distributed.WithFlightTimeout(r.set.FlightTimeout),
		distributed.WithMaxAge(r.set.MaxAge),
		distributed.WithRedisTimeout(r.set.RedisTimeout),
		distributed.WithReplicaID(r.id),
		distributed.WithLogger(r.plain),
		distributed.WithObserver(&fallbackLog{log: r.log}),
		distributed.WithObserver(r.leases),
	}
	for _, observer := range observers {
		options = append(options, distributed.WithObserver(observer))
	}
	group, err := distributed.New[product.Product](r.redis, options...)
	if err != nil {
		return nil, err
	}
	r.shared = group
	r.metrics.registry.MustRegister(coalesceprom.NewCollector(group.Totals))
	return group, nil
}

// run serves until ctx ends, and then closes the replica.
func (r *replica) run(ctx context.Context) error {
	if r.census != nil {
		joining := time.NewTimer(joinLimit)
		select {
		case <-r.census.Ready():
		case <-joining.C:
		case <-ctx.Done():
		}
		joining.Stop()
	}
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(r.listener) }()
	r.plain.Info("ready", "address", r.listener.Addr().String(), "replica", r.id, "mode", r.mode,
		"database", r.database, "redis", string(r.redisStatus(ctx)), "version", buildVersion())
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		r.log.Info("stopping", "delay", r.set.ShutdownDelay, "grace", r.set.Grace)
		r.server.Drain()
		select {
		case <-time.After(r.set.ShutdownDelay):
		case err = <-served: // which has failed
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

// close closes what there is, the users of a thing before the thing.
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
	if r.shared != nil {
		errs = append(errs, r.closeOnRedis("distributed tier", r.shared.Close))
	}
	if r.census != nil {
		errs = append(errs, r.closeOnRedis("census", r.census.Close))
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

// closeOnRedis closes a user of Redis within closeLimit. A Redis that does not
// answer in time is no failure of this replica: every request has had its
// answer, and what Redis was not told, the end of the lease tells the others.
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

// closeStore does not wait forever for a query that hangs: the process is about
// to end.
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

func (r *replica) redisStatus(ctx context.Context) api.RedisStatus {
	if r.redis == nil {
		return api.RedisDisabled
	}
	if r.shared != nil && r.shared.Stats().Distributed.Breaker == "open" {
		return api.RedisDegraded
	}
	ctx, cancel := context.WithTimeout(ctx, r.set.RedisTimeout)
	defer cancel()
	if r.redis.Ping(ctx).Err() != nil {
		return api.RedisDegraded
	}
	return api.RedisConnected
}

func (r *replica) tiers() api.Tiers {
	switch {
	case r.inside != nil:
		return api.Tiers{Local: localTier(r.inside.Stats())}
	case r.shared != nil:
		st := r.shared.Stats()
		return api.Tiers{Local: localTier(st.Local), Distributed: distributedTier(st.Distributed)}
	}
	return api.Tiers{}
}

func (r *replica) resetTiers() {
	if r.inside != nil {
		r.inside.ResetStats()
	}
	if r.shared != nil {
		r.shared.ResetStats()
	}
}

func localTier(st local.Stats) *api.LocalTier {
	return &api.LocalTier{
		Requests:      st.Requests,
		Leaders:       st.Leaders,
		Followers:     st.Followers,
		Errors:        st.Errors,
		ActiveFlights: st.ActiveFlights,
		Waiting:       st.Waiting,
	}
}

func distributedTier(st distributed.TierStats) *api.DistributedTier {
	return &api.DistributedTier{
		Requests:      st.Requests,
		Leaders:       st.Leaders,
		Followers:     st.Followers,
		Cached:        st.Cached,
		Fallbacks:     st.Fallbacks,
		Takeovers:     st.Takeovers,
		LeaseLost:     st.LeaseLost,
		Errors:        st.Errors,
		RedisErrors:   st.RedisErrors,
		RedisErrorsBy: st.RedisErrorsBy,
		Garbage:       st.Garbage,
		ActiveFlights: st.ActiveFlights,
		Breaker:       st.Breaker,
	}
}
