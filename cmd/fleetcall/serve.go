package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/internal/product"
)

// serveCmd has all settings of a replica that serves products.
type serveCmd struct {
	replicaFlags

	DatabaseURL string        `name:"database-url" env:"DATABASE_URL" help:"postgres://…, or sqlite:///path/file.db; empty: an embedded database."`
	QueryDelay  time.Duration `env:"QUERY_DELAY" default:"500ms" help:"How long the simulated slow query holds its connection."`
	DBPoolMin   int           `name:"db-pool-min" env:"DB_POOL_MIN" default:"5" help:"Database connections to keep."`
	DBPoolMax   int           `name:"db-pool-max" env:"DB_POOL_MAX" default:"10" help:"Database connections at most."`
	DBPoolWait  time.Duration `name:"db-pool-wait" env:"DB_POOL_WAIT" default:"60s" help:"How long a query waits for a connection."`
}

// Validate refuses values that cannot work, with an error that names the flag and the
// variable.
func (c *serveCmd) Validate() error {
	if c.DBPoolMax < 1 || c.DBPoolMax > 10_000 {
		return fmt.Errorf("--db-pool-max (DB_POOL_MAX): %d is not between 1 and 10000", c.DBPoolMax)
	}
	if c.DBPoolMin < 0 || c.DBPoolMin > c.DBPoolMax {
		return fmt.Errorf("--db-pool-min (DB_POOL_MIN): %d is not between 0 and --db-pool-max (DB_POOL_MAX), %d", c.DBPoolMin, c.DBPoolMax)
	}
	err := atLeast(
		leastTime{"--query-delay (QUERY_DELAY)", c.QueryDelay, 0},
		leastTime{"--db-pool-wait (DB_POOL_WAIT)", c.DBPoolWait, time.Millisecond},
	)
	if err != nil {
		return err
	}
	return c.check()
}

// Run serves until ctx ends, and then shuts down within the grace period.
func (c *serveCmd) Run(ctx context.Context) error {
	r, err := newReplica(ctx, c, c.setLog())
	if err != nil {
		return err
	}
	return r.run(ctx)
}

// setLog makes the settings' logger the one of the whole process.
func (f *replicaFlags) setLog() *slog.Logger {
	log := f.logger(os.Stderr)
	slog.SetDefault(log)
	redis.SetLogger(redisLog{log})
	return log
}

// groupName is the name of the one Group that a replica with products has.
const groupName = "product"

// newReplica makes a replica that serves products. It is no error when the database or
// Redis is down: the replica starts, and uses them when they are back.
func newReplica(ctx context.Context, set *serveCmd, log *slog.Logger) (*replica, error) {
	r, err := prepare(ctx, &set.replicaFlags, log, kind{
		group:  groupName,
		routes: []string{"/product/normal/:id", "/product/coalesced/:id", "/products"},
		runs:   "queries run",
	})
	if err != nil {
		return nil, err
	}
	if err := r.serveProducts(ctx, set); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// serveProducts gives the replica its database and its server.
func (r *replica) serveProducts(ctx context.Context, set *serveCmd) error {
	var tracer pgx.QueryTracer
	if r.traces != nil {
		tracer = r.traces.database()
	}
	store, database, err := openStore(ctx, set.DatabaseURL, product.PoolConfig{
		Min: set.DBPoolMin, Max: set.DBPoolMax, Wait: set.DBPoolWait, Delay: set.QueryDelay,
	}, tracer)
	if err != nil {
		return err
	}
	r.source = store.Close
	r.ready = newReadiness(store.Check, r.log)
	r.metrics.registry.MustRegister(databaseOf(store))
	group, err := groupOf[product.Product](r)
	if err != nil {
		return err
	}
	config := r.config()
	config.Store = store
	if config.Group, err = group(set.FlightTimeout); err != nil {
		return err
	}
	// The longest request has waited for a leader that died, then waits for a
	// connection, and then for its own query.
	config.WriteTimeout = set.DBPoolWait + set.QueryDelay + set.FlightTimeout + writeSlack
	if r.server, err = api.New(config); err != nil {
		return err
	}
	r.metrics.registry.MustRegister(batches(r.server.BatchTotals))
	r.endpoints = []endpoint{{r.server, r.listener}}
	r.described = []any{"database", database}
	return nil
}
