// Command grpc is a gRPC service in front of a slow database. However many of its replicas
// are asked for the same product at the same moment, one of them runs the query.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	run := serve
	if len(os.Args) == 4 && os.Args[1] == "get" {
		run = func(ctx context.Context, _ *slog.Logger) error { return get(ctx, os.Stdout, os.Args[2], os.Args[3]) }
	}
	if err := run(ctx, log); err != nil {
		fmt.Fprintln(os.Stderr, err)
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
	listener, err := net.Listen("tcp", cmp.Or(os.Getenv("LISTEN_ADDR"), "localhost:9090"))
	if err != nil {
		return errors.Join(err, s.fleet.Close(ctx))
	}
	log.Info("listening", "address", listener.Addr().String())
	return s.run(ctx, listener, grace)
}
