// Package product is the shop's catalogue: what a product is, what a store of
// products answers, and the thousand products that every database is filled
// with. The stores themselves are in the packages postgres and sqlite.
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
	// ErrNotFound is returned for an id that the table does not have.
	ErrNotFound = errors.New("fleetcall: no such product")
	// ErrUnavailable is returned when the database cannot be reached, or
	// went away during the query.
	ErrUnavailable = errors.New("fleetcall: the database is unavailable")
	// ErrBusy is returned when no connection of the pool became free within
	// PoolConfig.Wait.
	ErrBusy = errors.New("fleetcall: every database connection is busy")
)

func init() {
	coalesce.RegisterError("product.ErrNotFound", ErrNotFound)
	coalesce.RegisterError("product.ErrUnavailable", ErrUnavailable)
	coalesce.RegisterError("product.ErrBusy", ErrBusy)
}

// PoolConfig is what every store needs to know of its pool and of the query it
// makes slow.
type PoolConfig struct {
	Min, Max int           // connections kept, connections at most
	Wait     time.Duration // how long a query waits for a connection before ErrBusy
	Delay    time.Duration // how long a query holds its connection before it reads the row
}

// Stats counts what a store did since it was opened or last reset. InUse, Idle
// and Max are connections now.
type Stats struct {
	Queries uint64 // sent to the database
	Errors  uint64 // queries that failed, or that never got a connection
	InUse   int
	Idle    int
	Max     int
}

// Counters are the counts of a store. The zero value is ready to use.
type Counters struct {
	queries, failed, unsent     atomic.Uint64
	queriesBefore, errorsBefore atomic.Uint64 // the counts at the last Reset
}

// Sent counts a query; a store calls it just before it sends one. It also
// calls the hook of OnQuery.
func (c *Counters) Sent(ctx context.Context) {
	c.queries.Add(1)
	QuerySent(ctx)
}

// Failed counts the error of a query, which was sent or not.
func (c *Counters) Failed(sent bool) {
	if sent {
		c.failed.Add(1)
	} else {
		c.unsent.Add(1)
	}
}

func (c *Counters) errors() uint64 { return c.failed.Load() + c.unsent.Load() }

// Load returns the counts of queries and errors since Reset.
func (c *Counters) Load() (queries, errors uint64) {
	// The older counts first: they are never more.
	before, errorsBefore := c.queriesBefore.Load(), c.errorsBefore.Load()
	return c.queries.Load() - before, c.errors() - errorsBefore
}

// Totals are the counts since a store was opened, whatever Reset did.
type Totals struct {
	Queries uint64 // sent to the database
	Failed  uint64 // of those
	Unsent  uint64 // queries that never got a connection
}

// Totals returns the totals.
func (c *Counters) Totals() Totals {
	return Totals{Queries: c.queries.Load(), Failed: c.failed.Load(), Unsent: c.unsent.Load()}
}

// Reset sets the counts that Load returns to zero.
func (c *Counters) Reset() {
	c.queriesBefore.Store(c.queries.Load())
	c.errorsBefore.Store(c.errors())
}

type hookKey struct{}

// OnQuery returns a context under which a store calls hook each time it sends
// a query, just before. A call that never gets a connection, or whose context
// ends while it holds one, sends none.
func OnQuery(ctx context.Context, hook func()) context.Context {
	return context.WithValue(ctx, hookKey{}, hook)
}

// QuerySent calls the hook that OnQuery put into ctx, if there is one. Stores
// reach it through Counters.Sent.
func QuerySent(ctx context.Context) {
	if hook, ok := ctx.Value(hookKey{}).(func()); ok {
		hook()
	}
}

// Hold waits for d, as a query that is slow would; it returns ctx.Err() when
// ctx ends first.
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
