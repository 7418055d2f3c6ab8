// Command client is a service that asks a paid API for exchange rates. However many of its
// replicas want the same rate at the same moment, one of them asks.
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
)

const grace = 10 * time.Second

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := serve
	if len(os.Args) == 2 && os.Args[1] == "api" {
		run = serveAPI
	}
	if err := run(ctx, log); err != nil {
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

	s, err := newService(client, cmp.Or(os.Getenv("API_URL"), "http://localhost:9000"), log)
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
