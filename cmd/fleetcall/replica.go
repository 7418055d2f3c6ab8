package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/net/netutil"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/local"
	"github.com/fleetcall/fleetcall/coalesce/shadow"
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

// replica is a running member of a fleet, with all of its parts.
type replica struct {
	set       *replicaFlags
	kind      kind
	log       *slog.Logger // its lines have the replica's id
	plain     *slog.Logger // its lines do not: for parts that add the id themselves
	listener  net.Listener // for clients
	id        string
	mode      string
	source    func() error // closes what the replica gets its results from; nil until that is open
	ready     *readiness
	redis     redis.UniversalClient // nil without Redis
	fleet     *distributed.Fleet    // nil unless the mode is distributed
	local     localCounts           // nil unless the mode is local
	shadow    *shadow.Fleet         // nil unless the mode is shadow
	rollcall  *rollcall.Member      // nil without Redis
	leases    *leases               // nil without a distributed tier
	server    *api.Server
	endpoints []endpoint // in the order in which they are shut down
	described []any      // what else the log says of the replica when it is ready
	profiles  *profiles  // nil unless asked for
	metrics   *metrics
	traces    *traces // nil unless asked for
}

// kind is what one kind of replica has that another has not.
type kind struct {
	group  string   // the name of its Group
	routes []string // of its server, for which there are metrics from the start
	runs   string   // what its functions do, for the log: "queries run"
}

// localCounts are the counts of a local tier.
type localCounts interface {
	Stats() local.Stats
	ResetStats()
}

// endpoint is a server, and where it listens.
type endpoint struct {
	server interface {
		Serve(net.Listener) error
		Shutdown(context.Context) error
	}
	listener net.Listener
}

// prepare listens and makes the parts that every kind of replica has.
func prepare(ctx context.Context, set *replicaFlags, log *slog.Logger, kind kind) (r *replica, err error) {
	plain := slog.New(api.RequestLog{Handler: log.Handler()})
	r = &replica{set: set, kind: kind, log: plain, plain: plain, mode: set.mode()}
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
	if set.RedisURL == "" {
		return r, nil
	}
	return r, r.connectRedis(ctx)
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
	r.metrics = newMetrics(r.id, r.mode, r.kind)
	if r.set.PprofAddr != "" {
		r.profiles, err = startProfiles(ctx, r.set.PprofAddr, r.log)
	}
	return err
}

// config returns those settings of the replica's server that do not depend on its kind.
func (r *replica) config() api.Config {
	config := api.Config{
		Mode:       r.mode,
		Replica:    r.id,
		Tiers:      r.tiers,
		ResetTiers: r.resetTiers,
		Redis:      r.redisStatus,
		Readiness:  r.ready.load,
		Metrics:    r.metrics.handler(),
		Requested:  r.requested,
		AdminToken: r.set.AdminToken,
		Logger:     r.log,
	}
	if r.rollcall != nil {
		config.Fleet = r.rollcall
		config.Share = func(topic string, interval time.Duration, produce func(context.Context) ([]byte, error)) func(context.Context) ([]byte, error) {
			return r.rollcall.Share(topic, interval, produce).Next
		}
	}
	if r.shadow != nil {
		config.Shadow = r.shadowStats
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
