// Command chi is a service of go-chi whose handlers know nothing of a fleet. However many
// of its replicas are asked for the same product at the same moment, one handler runs.
package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/examples/internal/shop"
)

const grace = 10 * time.Second

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, log); err != nil {
		log.Error("the service has ended", "error", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, log *slog.Logger) (err error) {
	options, err := redis.ParseURL(cmp.Or(os.Getenv("REDIS_URL"), "redis://localhost:6379"))
	if err != nil {
		return err
	}
	options.ContextTimeoutEnabled = true
	options.MaxRetries, options.DialerRetries = -1, 1 // the fleet goes on without Redis by itself
	client := redis.NewClient(options)
	defer func() { err = errors.Join(err, client.Close()) }()

	s, err := newService(client, shop.NewMemory(500*time.Millisecond), log)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", cmp.Or(os.Getenv("LISTEN_ADDR"), "localhost:8080"))
	if err != nil {
		return errors.Join(err, s.fleet.Close(ctx))
	}
	log.Info("listening", "address", listener.Addr().String())
	return s.run(ctx, listener, grace)
}
