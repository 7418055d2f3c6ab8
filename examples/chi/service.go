package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/examples/internal/shop"
)

// service is one replica.
type service struct {
	fleet    *distributed.Fleet
	answers  *distributed.Group[*coalescehttp.Answer]
	database shop.Database
	log      *slog.Logger
}

func newService(client redis.UniversalClient, database shop.Database, log *slog.Logger, opts ...distributed.Option) (*service, error) {
	opts = append([]distributed.Option{distributed.WithNamespace("shop"), distributed.WithLogger(log)}, opts...)
	fleet, err := distributed.Open(client, opts...)
	if err != nil {
		return nil, err
	}
	answers, err := distributed.NewGroup[*coalescehttp.Answer](fleet, "answers", distributed.WithCodec(coalescehttp.Codec()))
	if err != nil {
		return nil, errors.Join(err, fleet.Close(context.Background()))
	}
	return &service{fleet: fleet, answers: answers, database: database, log: log}, nil
}

func (s *service) handler() http.Handler {
	r := chi.NewRouter()
	// These see every request: what is to be counted, logged or refused comes first.
	r.Use(middleware.RequestID, middleware.Recoverer)
	r.Group(func(r chi.Router) {
		// Requests for the same URL are merged, and the handler runs once for all of them.
		// No parameter but currency makes an answer another one.
		r.Use(coalescehttp.Middleware(s.answers, coalescehttp.WithQueryParameters("currency")))
		r.Get("/product/{id}", s.product)
	})
	r.Group(func(r chi.Router) {
		// Pages of a signed-in user are merged among the requests of that user.
		r.Use(s.signedIn, coalescehttp.Middleware(s.answers, coalescehttp.WithIdentity(user)))
		r.Get("/cart", s.cart)
	})
	r.Put("/product/{id}/price", s.setPrice)
	return r
}

func (s *service) product(w http.ResponseWriter, r *http.Request) {
	product, err := s.database.Product(r.Context(), chi.URLParam(r, "id"))
	switch {
	case errors.Is(err, shop.ErrNoProduct):
		http.Error(w, "there is no such product", http.StatusNotFound)
	case err != nil:
		s.log.ErrorContext(r.Context(), "a request failed", "path", r.URL.Path, "error", err)
		http.Error(w, "something went wrong here", http.StatusInternalServerError)
	default:
		answer(w, product)
	}
}

// cart says that its answer is one user's. Behind WithIdentity it is shared with the same
// user's other requests; without, with nobody.
func (s *service) cart(w http.ResponseWriter, r *http.Request) {
	product, err := s.database.Product(r.Context(), "1")
	if err != nil {
		http.Error(w, "something went wrong here", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Cache-Control", "private")
	answer(w, map[string]any{"user": user(r), "products": []shop.Product{product}})
}

func (s *service) setPrice(w http.ResponseWriter, r *http.Request) {
	var body struct{ Price float64 }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&body); err != nil || body.Price <= 0 {
		http.Error(w, `want {"price": 59}`, http.StatusUnprocessableEntity)
		return
	}
	switch err := s.database.SetPrice(r.Context(), chi.URLParam(r, "id"), body.Price); {
	case errors.Is(err, shop.ErrNoProduct):
		http.Error(w, "there is no such product", http.StatusNotFound)
	case err != nil:
		http.Error(w, "something went wrong here", http.StatusInternalServerError)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// tokens are those of two users. A real service verifies a signature.
var tokens = map[string]string{"Bearer a-token": "alice", "Bearer b-token": "bob"}

type userKey struct{}

// signedIn refuses who is not, and tells the handlers who is.
func (s *service) signedIn(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := tokens[r.Header.Get("Authorization")]
		if !ok {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "sign in first", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, name)))
	})
}

// user returns whose request it is, as signedIn has found out.
func user(r *http.Request) string {
	name, _ := r.Context().Value(userKey{}).(string)
	return name
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // a client that has left is no error of ours
}

// run serves until ctx ends. Then requests under way have the grace period to end, and so
// have those that other replicas wait for.
func (s *service) run(ctx context.Context, listener net.Listener, grace time.Duration) error {
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return errors.Join(err, s.fleet.Close(ctx))
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	err := server.Shutdown(ending)
	return errors.Join(err, s.fleet.Close(ending), server.Close())
}
