package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
)

// scans returns how often PostgreSQL has read the products table.
func (c *demoCmd) scans(ctx context.Context) (int64, error) {
	conn, err := pgx.Connect(ctx, c.DatabaseURL)
	if err != nil {
		// pgx leaves passwords out of its errors.
		return 0, fmt.Errorf("fleetcall: connecting to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var n int64
	err = conn.QueryRow(ctx, `SELECT coalesce(seq_scan, 0) + coalesce(idx_scan, 0) FROM pg_stat_user_tables WHERE relid = to_regclass('products')`).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("fleetcall: reading PostgreSQL's statistics: %w", err)
	}
	return n, nil
}

// scansSince returns how often the table was read since it had been read
// before times. PostgreSQL may need a moment to count what a closed connection
// did: up to ten seconds are waited for the expected number.
func (c *demoCmd) scansSince(ctx context.Context, before, expected int64) (int64, error) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		now, err := c.scans(ctx)
		if err != nil || now-before >= expected || time.Now().After(deadline) {
			return now - before, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// initdb makes the products table where there is none.
func (c *demoCmd) initdb(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, c.DatabaseURL)
	if err != nil {
		return fmt.Errorf("fleetcall: connecting to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var there bool
	if err := conn.QueryRow(ctx, `SELECT to_regclass('products') IS NOT NULL`).Scan(&there); err != nil {
		return fmt.Errorf("fleetcall: looking for the products table: %w", err)
	}
	if there {
		return nil
	}
	fmt.Fprintln(os.Stderr, "Making the products table.")
	return runSelf(ctx, "initdb", "DATABASE_URL="+c.DatabaseURL)
}
