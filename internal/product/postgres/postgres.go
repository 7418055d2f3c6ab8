// Package postgres stores the products in PostgreSQL.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/fleetcall/fleetcall/internal/product"
)

// connectTimeout bounds one attempt to connect if the URL has no connect_timeout.
// PoolConfig.Wait would be far too long: it bounds the wait for a busy pool, not for a
// host that is gone.
const connectTimeout = 5 * time.Second

// Store is a pool of connections to a database with the table products.
type Store struct {
	pool     *pgxpool.Pool
	config   product.PoolConfig
	counters product.Counters
}

// Open creates a pool for a postgres:// URL. It does not connect: if the database is
// down, queries fail and Open does not. If the URL is malformed, the error does not
// contain its password. If tracer is not nil, the pool reports to it.
func Open(ctx context.Context, url string, config product.PoolConfig, tracer pgx.QueryTracer) (*Store, error) {
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: reading the database's URL: %w", err)
	}
	c.MinConns, c.MaxConns = int32(config.Min), int32(config.Max)
	if c.ConnConfig.ConnectTimeout == 0 {
		c.ConnConfig.ConnectTimeout = connectTimeout
	}
	if c.ConnConfig.RuntimeParams["application_name"] == "" {
		c.ConnConfig.RuntimeParams["application_name"] = "fleetcall"
	}
	c.ConnConfig.Tracer = tracer
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: making a database pool: %w", err)
	}
	return &Store{pool: pool, config: config}, nil
}

// The query uses the simple protocol, which sends one message for each query. So the
// server logs one entry for it under every logging setting, and the query works through
// poolers that share a connection between transactions.
const selectProduct = `SELECT id, name, price, COALESCE(description, '') FROM products WHERE id = $1`

// Product takes a connection, holds it for the configured delay, and then reads the row
// with one statement. It returns product.ErrNotFound, product.ErrBusy,
// product.ErrUnavailable, ctx.Err(), or another error of the database.
func (s *Store) Product(ctx context.Context, id int32) (product.Product, error) {
	conn, err := s.acquire(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.counters.Failed(false)
		}
		return product.Product{}, fmt.Errorf("fleetcall: taking a database connection: %w", err)
	}
	defer conn.Release()
	if err := product.Hold(ctx, s.config.Delay); err != nil {
		return product.Product{}, err
	}
	s.counters.Sent(ctx)
	var p product.Product
	err = conn.QueryRow(ctx, selectProduct, pgx.QueryExecModeSimpleProtocol, id).Scan(&p.ID, &p.Name, &p.Price, &p.Description)
	switch {
	case err == nil:
		return p, nil
	case errors.Is(err, pgx.ErrNoRows):
		return product.Product{}, product.ErrNotFound
	case ctx.Err() != nil:
		return product.Product{}, ctx.Err()
	}
	s.counters.Failed(true)
	return product.Product{}, fmt.Errorf("fleetcall: reading product %d: %w", id, classify(err))
}

const selectProducts = `SELECT id, name, price, COALESCE(description, '') FROM products WHERE id = ANY($1)`

// Products is Product for many ids with one statement. It returns those that there are, in
// any order.
func (s *Store) Products(ctx context.Context, ids []int32) ([]product.Product, error) {
	conn, err := s.acquire(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.counters.Failed(false)
		}
		return nil, fmt.Errorf("fleetcall: taking a database connection: %w", err)
	}
	defer conn.Release()
	if err := product.Hold(ctx, s.config.Delay); err != nil {
		return nil, err
	}
	s.counters.Sent(ctx)
	rows, err := conn.Query(ctx, selectProducts, pgx.QueryExecModeSimpleProtocol, ids)
	if err == nil {
		found := make([]product.Product, 0, len(ids))
		var p product.Product
		_, err = pgx.ForEachRow(rows, []any{&p.ID, &p.Name, &p.Price, &p.Description}, func() error {
			found = append(found, p)
			return nil
		})
		if err == nil {
			return found, nil
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	s.counters.Failed(true)
	return nil, fmt.Errorf("fleetcall: reading %d products: %w", len(ids), classify(err))
}

func (s *Store) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	waiting, cancel := context.WithTimeout(ctx, s.config.Wait)
	defer cancel()
	conn, err := s.pool.Acquire(waiting)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case waiting.Err() != nil && s.pool.Stat().AcquiredConns() >= s.pool.Stat().MaxConns():
		return nil, product.ErrBusy
	}
	return nil, fmt.Errorf("%w: %w", product.ErrUnavailable, err)
}

// classify wraps an error with product.ErrUnavailable if it means that the server
// cannot be used. It leaves errors about the statement as they are.
func classify(err error) error {
	var reply *pgconn.PgError
	if !errors.As(err, &reply) {
		return fmt.Errorf("%w: %w", product.ErrUnavailable, err)
	}
	switch {
	case strings.HasPrefix(reply.Code, "08"), // connection exceptions
		strings.HasPrefix(reply.Code, "53"),  // out of memory, disk space or connections
		strings.HasPrefix(reply.Code, "57P"), // shutting down, starting up or crashed
		strings.HasPrefix(reply.Code, "58"):  // I/O errors of the server
		return fmt.Errorf("%w: %w", product.ErrUnavailable, err)
	case reply.Code == "42P01":
		return fmt.Errorf("the table is missing, run fleetcall initdb: %w", err)
	}
	return err
}

// checkProducts has all that selectProduct needs of the table, and reads no row.
const checkProducts = `SELECT id, name, price, COALESCE(description, '') FROM ONLY products LIMIT 0`

// Check asks whether the server takes the queries of Product. It returns
// product.ErrRefused if the server says no, and product.ErrUnavailable if it cannot be
// asked.
func (s *Store) Check(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, checkProducts, pgx.QueryExecModeSimpleProtocol)
	if err == nil {
		return nil
	}
	var reply *pgconn.PgError
	var connecting *pgconn.ConnectError
	var network net.Error
	switch classified := classify(err); {
	case errors.As(err, &reply) && !errors.Is(classified, product.ErrUnavailable):
		return fmt.Errorf("%w: %w", product.ErrRefused, classified)
	case reply != nil, errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), ctx.Err() != nil:
		return classified
	case errors.As(err, &connecting):
		// The two do not agree on how to talk, as when one of them wants TLS.
		return fmt.Errorf("%w: %w", product.ErrRefused, err)
	default:
		return classified
	}
}

// Ping checks the connection to the server. While the pool is full, it opens a
// connection beside the pool, because a full pool does not mean that the server is
// down.
func (s *Store) Ping(ctx context.Context) error {
	var err error
	if stat := s.pool.Stat(); stat.AcquiredConns() < stat.MaxConns() {
		err = s.pool.Ping(ctx)
	} else {
		var conn *pgx.Conn
		if conn, err = pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig); err == nil {
			err = conn.Close(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("fleetcall: pinging the database: %w: %w", product.ErrUnavailable, err)
	}
	return nil
}

// Stats returns the counts since the last reset, and the state of the pool.
func (s *Store) Stats() product.Stats {
	stat := s.pool.Stat()
	st := product.Stats{InUse: int(stat.AcquiredConns()), Idle: int(stat.IdleConns()), Max: int(stat.MaxConns())}
	st.Queries, st.Errors = s.counters.Load()
	return st
}

// Totals returns the counts since Open. ResetStats does not change them.
func (s *Store) Totals() product.Totals { return s.counters.Totals() }

// Pool returns the statistics of the pgx pool.
func (s *Store) Pool() *pgxpool.Stat { return s.pool.Stat() }

// ResetStats sets the counts of Stats to zero.
func (s *Store) ResetStats() { s.counters.Reset() }

// Close waits for running queries and closes all connections.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}

const (
	createTable = `CREATE TABLE IF NOT EXISTS products (
		id integer PRIMARY KEY,
		name text NOT NULL,
		price numeric(10,2) NOT NULL,
		description text NOT NULL
	)`
	upsertBatch = `INSERT INTO products (id, name, price, description)
		SELECT * FROM unnest($1::integer[], $2::text[], $3::numeric[], $4::text[])
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, price = excluded.price, description = excluded.description`
	// seedLock lets only one process seed at a time. Without it, two CREATE TABLE IF
	// NOT EXISTS at the same time may fail on a unique index of the system catalogue.
	seedLock = `SELECT pg_advisory_xact_lock(7236104201)`
)

// Seed creates the table if it is missing, and writes the products of the catalogue. It
// overwrites rows that have their ids and keeps all others. After each batch it calls
// progress, unless that is nil.
func (s *Store) Seed(ctx context.Context, progress func(done, total int)) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, seedLock); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, createTable)
		return err
	})
	if err != nil {
		return fmt.Errorf("fleetcall: making the table products: %w", classify(err))
	}
	return product.Batches(func(batch []product.Product) error { return s.write(ctx, batch) }, progress)
}

func (s *Store) write(ctx context.Context, batch []product.Product) error {
	ids, names := make([]int32, len(batch)), make([]string, len(batch))
	prices, descriptions := make([]float64, len(batch)), make([]string, len(batch))
	for i, p := range batch {
		ids[i], names[i], prices[i], descriptions[i] = p.ID, p.Name, p.Price, p.Description
	}
	if _, err := s.pool.Exec(ctx, upsertBatch, ids, names, prices, descriptions); err != nil {
		return classify(err)
	}
	return nil
}
