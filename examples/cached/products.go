package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/examples/internal/shop"
)

const (
	// namespace is that of the fleet, and what the channel's name begins with.
	namespace = "cached-shop"
	channel   = namespace + ":changed"

	// lifetime bounds how long a replica may show an old row that it was never told
	// of, because Redis was gone when the row changed.
	lifetime = time.Minute
	capacity = 10_000
)

// products are a replica's: a cache of its own, and a fleet that runs its misses.
type products struct {
	cache    *otter.Cache[string, shop.Product]
	fleet    *distributed.Fleet
	group    *distributed.Group[shop.Product]
	client   redis.UniversalClient
	database shop.Database
	log      *slog.Logger

	heard   *redis.PubSub
	cancel  context.CancelFunc
	stopped sync.WaitGroup
	onHeard func(id string) // for tests; may be nil
}

func newProducts(ctx context.Context, client redis.UniversalClient, database shop.Database, log *slog.Logger, opts ...distributed.Option) (*products, error) {
	cache, err := otter.New(&otter.Options[string, shop.Product]{
		MaximumSize:      capacity,
		ExpiryCalculator: otter.ExpiryWriting[string, shop.Product](lifetime),
	})
	if err != nil {
		return nil, err
	}
	opts = append([]distributed.Option{distributed.WithNamespace(namespace), distributed.WithLogger(log)}, opts...)
	fleet, err := distributed.Open(client, opts...)
	if err != nil {
		return nil, err
	}
	group, err := distributed.NewGroup[shop.Product](fleet, "products")
	if err != nil {
		return nil, errors.Join(err, fleet.Close(ctx))
	}
	p := &products{cache: cache, fleet: fleet, group: group, client: client, database: database, log: log, heard: client.Subscribe(ctx, channel)}
	// What changes from here on is heard: nothing has been cached before that.
	if _, err := p.heard.Receive(ctx); err != nil {
		return nil, errors.Join(err, p.heard.Close(), fleet.Close(ctx))
	}
	listening, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.stopped.Go(func() { p.listen(listening) })
	return p, nil
}

// get returns a product from the cache, or from a query that all replicas share whose
// cache has no such product now.
func (p *products) get(ctx context.Context, id string) (shop.Product, coalesce.Role, error) {
	role := coalesce.Cached
	row, err := p.cache.Get(ctx, id, otter.LoaderFunc[string, shop.Product](func(ctx context.Context, id string) (row shop.Product, err error) {
		row, role, err = p.group.Do(ctx, id, func(ctx context.Context) (shop.Product, error) {
			return p.database.Product(ctx, id)
		})
		return row, err
	}))
	return row, role, err
}

// setPrice changes a row, and makes every replica forget what it knew of it.
func (p *products) setPrice(ctx context.Context, id string, price float64) error {
	if err := p.database.SetPrice(ctx, id, price); err != nil {
		return err
	}
	err := p.forget(ctx, id)
	err = errors.Join(err, p.client.Publish(ctx, channel, id).Err())
	if err != nil {
		// The row has changed all the same, and no cache keeps the old one for longer than its lifetime.
		p.log.WarnContext(ctx, "other replicas may show the old price for a while", "id", id, "error", err)
	}
	return nil
}

// forget makes this replica forget a row. The order matters. The flight is forgotten
// first: otherwise a request could find the cache empty, join a query that has read the
// old row, and put that into the cache, where it would stay. A load of the cache that
// is under way meanwhile is discarded by Invalidate, and done again.
func (p *products) forget(ctx context.Context, id string) error {
	err := p.group.Forget(ctx, id)
	p.cache.Invalidate(id)
	return err
}

// listen hears which rows have changed on other replicas. The notices of Forget come
// on another connection, and so may come later than this message: the listener forgets
// the flight itself before it empties the cache.
func (p *products) listen(ctx context.Context) {
	for {
		switch message, err := p.heard.Receive(ctx); {
		case ctx.Err() != nil:
			return
		case err != nil:
			p.log.Warn("what other replicas change is not heard now", "error", err)
			p.cache.InvalidateAll()
			pause(ctx, 100*time.Millisecond)
		default:
			p.hear(ctx, message)
		}
	}
}

func (p *products) hear(ctx context.Context, message any) {
	switch message := message.(type) {
	case *redis.Message:
		if err := p.forget(ctx, message.Payload); err != nil {
			p.log.Warn("a flight may be older than its row", "id", message.Payload, "error", err)
		}
		if p.onHeard != nil {
			p.onHeard(message.Payload)
		}
	case *redis.Subscription:
		p.cache.InvalidateAll() // subscribed anew: what was said meanwhile is lost
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// close waits for requests under way until ctx ends.
func (p *products) close(ctx context.Context) error {
	err := p.fleet.Close(ctx)
	p.cancel()
	err = errors.Join(err, p.heard.Close())
	p.stopped.Wait()
	p.cache.StopAllGoroutines()
	return err
}
