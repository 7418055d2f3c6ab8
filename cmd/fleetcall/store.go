package main

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/product/postgres"
	"github.com/fleetcall/fleetcall/internal/product/sqlite"
)

// store is what both kinds of database are.
type store interface {
	Product(ctx context.Context, id int32) (product.Product, error)
	Products(ctx context.Context, ids []int32) ([]product.Product, error)
	Ping(ctx context.Context) error
	Check(ctx context.Context) error
	Stats() product.Stats
	Totals() product.Totals
	ResetStats()
	Seed(ctx context.Context, progress func(done, total int)) error
	Close() error
}

// errDatabaseURL has none of the URL in it: it may be a password that made it
// unreadable.
var errDatabaseURL = errors.New("fleetcall: --database-url (DATABASE_URL) is neither postgres://user:password@host:port/database nor sqlite:///path/file.db")

// openStore opens the database of a DATABASE_URL and says which kind it is.
// tracer, which may be nil, is told of a PostgreSQL's queries.
func openStore(ctx context.Context, address string, config product.PoolConfig, tracer pgx.QueryTracer) (store, string, error) {
	scheme, rest, isURL := strings.Cut(address, "://")
	switch {
	case address == "":
		return opened("embedded, in memory")(sqlite.Open(ctx, "", config))
	case isURL && scheme == "sqlite":
		path, err := url.PathUnescape(rest)
		if err != nil || path == "" {
			return nil, "", errDatabaseURL
		}
		return opened("embedded, in a file")(sqlite.Open(ctx, path, config))
	case isURL && (scheme == "postgres" || scheme == "postgresql"), !isURL && strings.Contains(address, "="):
		s, err := postgres.Open(ctx, address, config, tracer)
		if err != nil {
			return nil, "", err
		}
		return s, "PostgreSQL", nil
	}
	return nil, "", errDatabaseURL
}

func opened(kind string) func(*sqlite.Store, error) (store, string, error) {
	return func(s *sqlite.Store, err error) (store, string, error) {
		if err != nil {
			return nil, "", err
		}
		return s, kind, nil
	}
}
