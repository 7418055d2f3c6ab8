// Package product describes the products of the shop: a product, the errors and counts
// of a store of products, and the thousand products with which every database is
// filled. The stores themselves are in the packages postgres and sqlite.
package product

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// Product is one row of the table products.
type Product struct {
	ID          int32   `json:"id"`
	Name        string  `json:"name"`
	Price       float64 `json:"price"`
	Description string  `json:"description"`
}

var (
	// ErrNotFound is returned for an id that is not in the table.
	ErrNotFound = errors.New("fleetcall: no such product")
	// ErrUnavailable is returned when the database cannot be reached, or when the
	// connection to it is lost during the query.
	ErrUnavailable = errors.New("fleetcall: the database is unavailable")
	// ErrRefused is returned by a store's Check when the database answers, and does not
	// take this replica's queries: a wrong password, no such database, no table products,
	// no right to read it.
	ErrRefused = errors.New("fleetcall: the database refuses this replica")
	// ErrBusy is returned when all connections of the pool have been in use for
	// PoolConfig.Wait.
	ErrBusy = errors.New("fleetcall: every database connection is busy")
)

func init() {
	coalesce.RegisterError("product.ErrNotFound", ErrNotFound)
	coalesce.RegisterError("product.ErrUnavailable", ErrUnavailable)
	coalesce.RegisterError("product.ErrBusy", ErrBusy)
}

// PoolConfig configures a store's pool of connections and the delay that makes its
// queries slow.
type PoolConfig struct {
	Min, Max int           // connections that stay open, and connections at most
	Wait     time.Duration // how long a query waits for a connection
	Delay    time.Duration // how long a query holds its connection before it reads the row
}

// Stats has the counts of a store since it was opened or last reset. InUse, Idle and
// Max are numbers of connections at this moment.
type Stats struct {
	Queries uint64 // sent to the database
	Errors  uint64 // queries that failed, and calls that got no connection
	InUse   int
	Idle    int
	Max     int
}

// Counters counts the queries of a store. The zero value is ready to use.
type Counters struct {
	queries, failed, unsent     atomic.Uint64
	queriesBefore, errorsBefore atomic.Uint64 // the counts at the last Reset
}

// Sent counts a query and calls the hook of OnQuery. A store calls Sent immediately
// before it sends a query.
func (c *Counters) Sent(ctx context.Context) {
	c.queries.Add(1)
	QuerySent(ctx)
}

// Failed counts an error. sent is false if the call got no connection and sent no
// query.
func (c *Counters) Failed(sent bool) {
	if sent {
		c.failed.Add(1)
	} else {
		c.unsent.Add(1)
	}
}

func (c *Counters) errors() uint64 { return c.failed.Load() + c.unsent.Load() }

// Load returns the counts since the last Reset.
func (c *Counters) Load() (queries, errors uint64) {
	// Load the counts at the reset first. In this order the differences cannot be
	// negative.
	before, errorsBefore := c.queriesBefore.Load(), c.errorsBefore.Load()
	return c.queries.Load() - before, c.errors() - errorsBefore
}

// Totals has the counts of a store since it was opened. Reset does not change them.
type Totals struct {
	Queries uint64 // sent to the database
	Failed  uint64 // queries that failed
	Unsent  uint64 // calls that got no connection
}

// Totals returns the counts since the store was opened.
func (c *Counters) Totals() Totals {
	return Totals{Queries: c.queries.Load(), Failed: c.failed.Load(), Unsent: c.unsent.Load()}
}

// Reset sets the counts that Load returns to zero.
func (c *Counters) Reset() {
	c.queriesBefore.Store(c.queries.Load())
	c.errorsBefore.Store(c.errors())
}

type hookKey struct{}

// OnQuery returns a context under which a store calls hook immediately before it sends
// a query. A call that gets no connection, or whose context ends during the delay,
// sends no query.
func OnQuery(ctx context.Context, hook func()) context.Context {
	return context.WithValue(ctx, hookKey{}, hook)
}

// QuerySent calls the hook that OnQuery put into ctx, if there is one. Stores call it
// through Counters.Sent.
func QuerySent(ctx context.Context) {
	if hook, ok := ctx.Value(hookKey{}).(func()); ok {
		hook()
	}
}

// Hold waits for d, to make a query slow. If ctx ends first, Hold returns ctx.Err().
func Hold(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
