package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/fleetcall/fleetcall/internal/product"
)

type initdbCmd struct {
	DatabaseURL string `name:"database-url" env:"DATABASE_URL" help:"postgres://user:password@host:port/database, or sqlite:///path/file.db."`
}

// Run makes the table and writes the products, batch by batch. Running it again
// changes nothing that it has not written itself.
func (c *initdbCmd) Run(ctx context.Context, stdout io.Writer) error {
	if c.DatabaseURL == "" {
		return errors.New("fleetcall: initdb needs a database: set DATABASE_URL or --database-url, " +
			"such as postgres://user:password@localhost:5432/shop (without one, serve uses an embedded database that is filled already)")
	}
	s, kind, err := openStore(ctx, c.DatabaseURL, product.PoolConfig{Min: 1, Max: 2, Wait: 30 * time.Second}, nil)
	if err != nil {
		return err
	}
	begin := time.Now()
	err = s.Seed(ctx, func(done, total int) {
		_, _ = fmt.Fprintf(stdout, "%4d of %d products\n", done, total)
	})
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(stdout, "The table products is ready (%s, %v).\n", kind, time.Since(begin).Round(time.Millisecond))
	return nil
}
