package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/examples/internal/shop"
)

// service is one replica.
type service struct {
	fleet    *distributed.Fleet
	products *distributed.Group[shop.Product]
	database shop.Database
	log      *slog.Logger
	stopping atomic.Bool
}

func newService(client redis.UniversalClient, database shop.Database, log *slog.Logger, opts ...distributed.Option) (*service, error) {
	// Two services in one Redis need two namespaces.
	opts = append([]distributed.Option{distributed.WithNamespace("shop"), distributed.WithLogger(log)}, opts...)
	fleet, err := distributed.Open(client, opts...)
	if err != nil {
		return nil, err
	}
	products, err := distributed.NewGroup[shop.Product](fleet, "products")
	if err != nil {
		return nil, errors.Join(err, fleet.Close(context.Background()))
	}
	return &service{fleet: fleet, products: products, database: database, log: log}, nil
}

// run serves until ctx ends. Then the requests under way have the grace period to
// end, and so have the queries that other replicas wait for: what this replica still
// leads after it is given up, and another replica runs it.
func (s *service) run(ctx context.Context, listener net.Listener, grace time.Duration) error {
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return errors.Join(err, s.fleet.Close(ctx))
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	s.log.Info("stopping", "grace", grace)
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := server.Shutdown(ending)
	err = errors.Join(err, s.fleet.Close(ending))
	// Callers whose flight was given up have their error now: let the answers out.
	answers, cancelAnswers := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancelAnswers()
	if server.Shutdown(answers) != nil {
		err = errors.Join(err, server.Close())
	}
	return err
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /product/{id}", s.getProduct)
	mux.HandleFunc("PUT /product/{id}/price", s.setPrice)
	mux.HandleFunc("GET /healthz", s.health)
	return mux
}

func (s *service) getProduct(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	// The id alone is the key, because all callers may see the same. A result that
	// depends on who asks needs that in its key.
	product, role, err := s.products.Do(r.Context(), id, func(ctx context.Context) (shop.Product, error) {
		return s.database.Product(ctx, id) // with ctx, not with the request's context: others may wait
	})
	w.Header().Set("X-Coalesce-Role", role.String())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	answer(w, product)
}

// setPrice changes a row. Requests that come after it must not join a query that may
// have read the old one: so the key is forgotten, after the change.
func (s *service) setPrice(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	var body struct{ Price float64 }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&body); err != nil || body.Price <= 0 {
		http.Error(w, `want {"price": 59}`, http.StatusUnprocessableEntity)
		return
	}
	if err := s.database.SetPrice(r.Context(), id, body.Price); err != nil {
		s.fail(w, r, err)
		return
	}
	if err := s.products.Forget(r.Context(), id); err != nil {
		// The row has changed all the same. Without Redis no replica joins another's query.
		s.log.WarnContext(r.Context(), "other replicas may share the old price for a moment", "id", id, "error", err)
	}
	w.WriteHeader(http.StatusNoContent)
}

// health is for the balancer. A Redis that is down is no reason to take a replica out:
// it answers, with queries of its own.
func (s *service) health(w http.ResponseWriter, _ *http.Request) {
	if s.stopping.Load() {
		http.Error(w, "stopping", http.StatusServiceUnavailable)
		return
	}
	redis := distributed.ServerUp
	for _, server := range s.fleet.Stats().Redis.Servers {
		if server.State == distributed.ServerDown {
			redis = distributed.ServerDown
		}
	}
	answer(w, map[string]string{"status": "ok", "redis": string(redis)})
}

func (s *service) fail(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, shop.ErrNoProduct): // of this replica's query, or of another's
		http.Error(w, "there is no such product", http.StatusNotFound)
	case r.Context().Err() != nil: // the client has left, and nobody reads this
	case errors.Is(err, coalesce.ErrClosed), errors.Is(err, coalesce.ErrPoisoned), errors.Is(err, coalesce.ErrUnavailable):
		w.Header().Set("Retry-After", "1")
		http.Error(w, "try again", http.StatusServiceUnavailable)
	case errors.Is(err, context.DeadlineExceeded): // ErrFlightTimeout is one
		http.Error(w, "the query took too long", http.StatusGatewayTimeout)
	default:
		s.log.ErrorContext(r.Context(), "a request failed", "path", r.URL.Path, "error", err)
		http.Error(w, "something went wrong here", http.StatusInternalServerError)
	}
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // a client that has left is no error of ours
}
