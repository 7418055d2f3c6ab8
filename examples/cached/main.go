// Command cached is a service with a cache in front of a slow database. Each replica
// has a cache of its own; what it has not, all replicas fetch by one query.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
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
	options.ContextTimeoutEnabled = true // so that a caller may send its flight's first command itself
	// The fleet goes on without Redis by itself. A client that tried again would hide a
	// refused connection behind the Redis timeout.
	options.MaxRetries, options.DialerRetries = -1, 1
	client := redis.NewClient(options)
	defer func() { err = errors.Join(err, client.Close()) }()
	p, err := newProducts(ctx, client, shop.NewMemory(500*time.Millisecond), log)
	if err != nil {
		return err
	}
	server := &http.Server{Addr: cmp.Or(os.Getenv("LISTEN_ADDR"), "localhost:8080"), Handler: handler(p), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	log.Info("listening", "address", server.Addr)
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err = errors.Join(err, server.Shutdown(ending), p.close(ending))
	// Callers whose flight was given up have their error now: let the answers out.
	answers, cancelAnswers := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancelAnswers()
	if server.Shutdown(answers) != nil {
		err = errors.Join(err, server.Close())
	}
	return err
}

func handler(p *products) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /product/{id}", func(w http.ResponseWriter, r *http.Request) {
		row, role, err := p.get(r.Context(), r.PathValue("id"))
		w.Header().Set("X-Coalesce-Role", role.String())
		if err != nil {
			fail(w, r, p.log, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(row) // a client that has left is no error of ours
	})
	mux.HandleFunc("PUT /product/{id}/price", func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Price float64 }
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&body); err != nil || body.Price <= 0 {
			http.Error(w, `want {"price": 59}`, http.StatusUnprocessableEntity)
			return
		}
		if err := p.setPrice(r.Context(), r.PathValue("id"), body.Price); err != nil {
			fail(w, r, p.log, err)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	return mux
}

func fail(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	switch {
	case errors.Is(err, shop.ErrNoProduct):
		http.Error(w, "there is no such product", http.StatusNotFound)
	case r.Context().Err() != nil: // the client has left
	case errors.Is(err, coalesce.ErrClosed), errors.Is(err, coalesce.ErrPoisoned), errors.Is(err, context.DeadlineExceeded):
		w.Header().Set("Retry-After", "1")
		http.Error(w, "try again", http.StatusServiceUnavailable)
	default:
		log.ErrorContext(r.Context(), "a request failed", "path", r.URL.Path, "error", err)
		http.Error(w, "something went wrong here", http.StatusInternalServerError)
	}
}
