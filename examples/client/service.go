package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// service is one replica.
type service struct {
	fleet   *distributed.Fleet
	answers *distributed.Group[*coalescehttp.Answer]
	api     *http.Client
	apiURL  string
	log     *slog.Logger
}

func newService(client redis.UniversalClient, apiURL string, log *slog.Logger, opts ...distributed.Option) (*service, error) {
	opts = append([]distributed.Option{distributed.WithNamespace("rates"), distributed.WithLogger(log)}, opts...)
	fleet, err := distributed.Open(client, opts...)
	if err != nil {
		return nil, err
	}
	answers, err := distributed.NewGroup[*coalescehttp.Answer](fleet, "api", distributed.WithCodec(coalescehttp.Codec()))
	if err != nil {
		return nil, errors.Join(err, fleet.Close(context.Background()))
	}
	// All that is to happen once for each call of the API, its token for example, belongs
	// below the Transport: what is above runs for each caller. A token that is set below is no
	// part of the request when it is merged: all callers of this client may have the answer.
	transport := coalescehttp.NewTransport(withToken{http.DefaultTransport.(*http.Transport).Clone()}, answers, coalescehttp.WithSortedQuery())
	return &service{fleet: fleet, answers: answers, api: &http.Client{Transport: transport}, apiURL: apiURL, log: log}, nil
}

// withToken adds the token of the API.
type withToken struct{ *http.Transport }

func (t withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer paid-for")
	return t.Transport.RoundTrip(r)
}

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /convert", s.convert)
	return mux
}

// convert answers how much an amount in one currency is in another.
func (s *service) convert(w http.ResponseWriter, r *http.Request) {
	var amount float64
	if _, err := fmt.Sscan(r.FormValue("amount"), &amount); err != nil {
		http.Error(w, "want ?amount=10&from=EUR&to=USD", http.StatusUnprocessableEntity)
		return
	}
	rate, role, err := s.rate(r.Context(), r.FormValue("from"), r.FormValue("to"))
	w.Header().Set("X-Coalesce-Role", role)
	if err != nil {
		s.log.WarnContext(r.Context(), "no rate", "error", err)
		http.Error(w, "there is no rate now", http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]float64{"amount": amount * rate}) // a client that has left is no error of ours
}

// rate asks the API, or shares the answer of another who asks. It is the code that would be
// there without fleetcall: only the client knows.
func (s *service) rate(ctx context.Context, from, to string) (rate float64, role string, err error) {
	query := url.Values{"from": {from}, "to": {to}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.apiURL+"/rate?"+query.Encode(), nil)
	if err != nil {
		return 0, "", err
	}
	response, err := s.api.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	role = response.Header.Get(coalescehttp.RoleHeader)
	if response.StatusCode != http.StatusOK {
		return 0, role, fmt.Errorf("the API answers %s", response.Status)
	}
	var answer struct{ Rate float64 }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return 0, role, err
	}
	return answer.Rate, role, nil
}

// run serves until ctx ends. Then requests under way have the grace period to end, and so
// have those calls of the API that other replicas wait for.
func (s *service) run(ctx context.Context, listener net.Listener, grace time.Duration) error {
	server := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	defer s.api.CloseIdleConnections()
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
