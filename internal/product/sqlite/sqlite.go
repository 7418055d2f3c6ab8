// Package sqlite stores the products in an embedded SQLite database: in memory, or in a
// file that the replicas of one machine share.
package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	_ "modernc.org/sqlite" // registers the driver "sqlite", which needs no C compiler

	"github.com/fleetcall/fleetcall/internal/product"
)

// Store is a pool of connections to a database with the table products.
type Store struct {
	db       *sql.DB
	config   product.PoolConfig
	counters product.Counters
	slots    chan struct{} // has an element for each connection in use
}

// Open opens the database file at path, creates it if it is missing, and fills it with
// the catalogue. If the path is empty, the database is in memory and ends with the
// Store. Several processes may open one file at the same time.
func Open(ctx context.Context, path string, config product.PoolConfig) (*Store, error) {
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		return nil, fmt.Errorf("fleetcall: opening the embedded database: %w", err)
	}
	// Idle connections stay open, because a database in memory ends with its last
	// connection.
	db.SetMaxOpenConns(config.Max)
	db.SetMaxIdleConns(config.Max)
	s := &Store{db: db, config: config, slots: make(chan struct{}, config.Max)}
	if err := s.prepare(ctx); err != nil {
		_ = db.Close()
		return nil, err
	}
	return s, nil
}

func dsn(path string) string {
	query := url.Values{"_txlock": {"immediate"}, "_pragma": {"busy_timeout(60000)"}}
	if path == "" {
		query.Set("vfs", "memdb")
		return "file:/fleetcall-" + rand.Text() + "?" + query.Encode()
	}
	query.Add("_pragma", "journal_mode(WAL)")
	query.Add("_pragma", "synchronous(NORMAL)")
	return (&url.URL{Scheme: "file", Opaque: strings.ReplaceAll(url.PathEscape(path), "%2F", "/"), RawQuery: query.Encode()}).String()
}

// prepare seeds the database and opens the minimum number of connections.
func (s *Store) prepare(ctx context.Context) error {
	seeded, err := s.seeded(ctx)
	if err != nil {
		return err
	}
	if !seeded {
		if err := s.Seed(ctx, nil); err != nil {
			return err
		}
	}
	conns := make([]*sql.Conn, 0, s.config.Min)
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	for range s.config.Min {
		conn, err := s.db.Conn(ctx)
		if err != nil {
			return fmt.Errorf("fleetcall: opening the embedded database: %w", err)
		}
		conns = append(conns, conn)
	}
	return nil
}

// seeded reports whether the database has the whole catalogue. If it has, a replica
// that starts beside others writes nothing.
func (s *Store) seeded(ctx context.Context) (bool, error) {
	const missingTable = "no such table"
	var n int
	err := s.db.QueryRowContext(ctx, `SELECT count(*) FROM products WHERE id BETWEEN 1 AND ?`, product.CatalogueSize).Scan(&n)
	if err != nil && !strings.Contains(err.Error(), missingTable) {
		return false, fmt.Errorf("fleetcall: opening the embedded database: %w", err)
	}
	return n == product.CatalogueSize, nil
}

// Product takes a connection, holds it for the configured delay, and then reads the row
// with one statement. It returns product.ErrNotFound, product.ErrBusy,
// product.ErrUnavailable or ctx.Err().
func (s *Store) Product(ctx context.Context, id int32) (product.Product, error) {
	conn, err := s.acquire(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.counters.Failed(false)
		}
		return product.Product{}, fmt.Errorf("fleetcall: taking a database connection: %w", err)
	}
	defer s.release(conn)
	if err := product.Hold(ctx, s.config.Delay); err != nil {
		return product.Product{}, err
	}
	s.counters.Sent(ctx)
	var p product.Product
	err = conn.QueryRowContext(ctx, `SELECT id, name, price, description FROM products WHERE id = ?`, id).
		Scan(&p.ID, &p.Name, &p.Price, &p.Description)
	switch {
	case err == nil:
		return p, nil
	case errors.Is(err, sql.ErrNoRows):
		return product.Product{}, product.ErrNotFound
	case ctx.Err() != nil:
		return product.Product{}, ctx.Err()
	}
	s.counters.Failed(true)
	return product.Product{}, fmt.Errorf("fleetcall: reading product %d: %w: %w", id, product.ErrUnavailable, err)
}

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
	defer s.release(conn)
	if err := product.Hold(ctx, s.config.Delay); err != nil {
		return nil, err
	}
	s.counters.Sent(ctx)
	found, err := readAll(ctx, conn, ids)
	switch {
	case err == nil:
		return found, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	s.counters.Failed(true)
	return nil, fmt.Errorf("fleetcall: reading %d products: %w: %w", len(ids), product.ErrUnavailable, err)
}

// readAll passes the ids as a list in JSON, because SQLite has no arrays.
func readAll(ctx context.Context, conn *sql.Conn, ids []int32) (found []product.Product, err error) {
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	rows, err := conn.QueryContext(ctx, `SELECT id, name, price, description FROM products WHERE id IN (SELECT value FROM json_each(?))`, string(list))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var p product.Product
		if err := rows.Scan(&p.ID, &p.Name, &p.Price, &p.Description); err != nil {
			return nil, err
		}
		found = append(found, p)
	}
	return found, rows.Err()
}

// acquire waits for a slot before it asks the pool for a connection, because the pool
// does not tell whether it waits for a connection or opens one.
func (s *Store) acquire(ctx context.Context) (*sql.Conn, error) {
	waiting, cancel := context.WithTimeout(ctx, s.config.Wait)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
	case <-waiting.Done():
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, product.ErrBusy
	}
	conn, err := s.db.Conn(ctx)
	if err != nil {
		<-s.slots
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %w", product.ErrUnavailable, err)
	}
	return conn, nil
}

func (s *Store) release(conn *sql.Conn) {
	_ = conn.Close()
	<-s.slots
}

// Check asks whether the database takes the queries of Product. It returns
// product.ErrRefused if it does not, and product.ErrUnavailable if ctx ends first.
func (s *Store) Check(ctx context.Context) error {
	_, err := s.db.ExecContext(ctx, `SELECT id, name, price, description FROM products LIMIT 0`)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("fleetcall: checking the embedded database: %w: %w", product.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w", product.ErrRefused, err)
}

// Ping reads the version of the schema. If all connections are in use, it does nothing:
// that shows that the database works.
func (s *Store) Ping(ctx context.Context) error {
	if len(s.slots) == cap(s.slots) {
		return nil
	}
	var version int
	if err := s.db.QueryRowContext(ctx, `PRAGMA schema_version`).Scan(&version); err != nil {
		return fmt.Errorf("fleetcall: pinging the embedded database: %w: %w", product.ErrUnavailable, err)
	}
	return nil
}

// Stats returns the counts since the last reset, and the state of the pool.
func (s *Store) Stats() product.Stats {
	stat := s.db.Stats()
	st := product.Stats{InUse: stat.InUse, Idle: stat.Idle, Max: stat.MaxOpenConnections}
	st.Queries, st.Errors = s.counters.Load()
	return st
}

// Totals returns the counts since Open. ResetStats does not change them.
func (s *Store) Totals() product.Totals { return s.counters.Totals() }

// ResetStats sets the counts of Stats to zero.
func (s *Store) ResetStats() { s.counters.Reset() }

// Close closes all connections.
func (s *Store) Close() error {
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("fleetcall: closing the embedded database: %w", err)
	}
	return nil
}

const (
	createTable = `CREATE TABLE IF NOT EXISTS products (
		id INTEGER PRIMARY KEY,
		name TEXT NOT NULL,
		price REAL NOT NULL,
		description TEXT NOT NULL
	)`
	upsert = `INSERT INTO products (id, name, price, description) VALUES (?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, price = excluded.price, description = excluded.description`
)

// Seed creates the table if it is missing, and writes the products of the catalogue. It
// overwrites rows that have their ids and keeps all others. After each batch it calls
// progress, unless that is nil.
func (s *Store) Seed(ctx context.Context, progress func(done, total int)) error {
	if _, err := s.db.ExecContext(ctx, createTable); err != nil {
		return fmt.Errorf("fleetcall: making the table products: %w", err)
	}
	return product.Batches(func(batch []product.Product) error { return s.write(ctx, batch) }, progress)
}

func (s *Store) write(ctx context.Context, batch []product.Product) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for _, p := range batch {
		if _, err := tx.ExecContext(ctx, upsert, p.ID, p.Name, p.Price, p.Description); err != nil {
			return err
		}
	}
	return tx.Commit()
}
