package distributed_test

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// A service ends in this order: the server, the Fleet, the answers of those whose flight
// was given up, the Redis client.
func ExampleFleet_Close_server() {
	client := redis.NewClient(&redis.Options{Addr: "localhost:6379", ContextTimeoutEnabled: true, MaxRetries: -1, DialerRetries: 1})
	fleet, err := distributed.Open(client)
	if err != nil {
		panic(err)
	}
	server := &http.Server{Addr: "localhost:8080"}
	go server.ListenAndServe()

	stop := func() error { // on SIGTERM
		grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		// Both share the grace period: the Fleet gets what requests have left of it, and
		// then gives up what it still leads, so that other replicas take over at once.
		err := errors.Join(server.Shutdown(grace), fleet.Close(grace))

		// Callers whose flight was given up have their error only now: let the answers out.
		answers, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(answers) != nil {
			err = errors.Join(err, server.Close())
		}
		return errors.Join(err, client.Close()) // not before the Fleet, which still uses it
	}
	if err := stop(); err != nil {
		panic(err)
	}
}
