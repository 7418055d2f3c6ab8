package main

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// startRedis starts a private redis-server that ends with stop.
func startRedis() (addr string, stop func()) {
	h := &rig.Host{}
	return redisrig.Start(h).Addr, h.Close
}

// newClient returns a client as a service makes it: with go-redis' defaults.
func newClient(addr string) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
}

// newObserver returns a client that asks a Redis what it does: it waits until
// Redis is done with megabytes.
func newObserver(addr string) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: addr, ReadTimeout: time.Minute})
}

// must is for what a benchmark cannot go on without; run returns the error.
func must(err error) {
	if err != nil {
		panic(rig.HostError{Err: err})
	}
}

func value[T any](v T, err error) T {
	must(err)
	return v
}

func background() context.Context { return context.Background() }
