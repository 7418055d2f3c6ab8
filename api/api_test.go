package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/rig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is a Store whose query and ping are functions of the test.
type store struct {
	product.Counters
	query func(ctx context.Context, id int32) (product.Product, error)
	ping  func(ctx context.Context) error
}

func (s *store) Product(ctx context.Context, id int32) (product.Product, error) {
	if s.query != nil {
		return s.query(ctx, id)
	}
	s.Sent(ctx)
	if all := product.Catalogue(); int(id) <= len(all) {
		return all[id-1], nil
	}
	return product.Product{}, product.ErrNotFound
}

// Products is one query, or those of Product if the test has one.
func (s *store) Products(ctx context.Context, ids []int32) (found []product.Product, err error) {
	if s.query == nil {
		s.Sent(ctx)
	}
	for _, id := range ids {
		var p product.Product
		err = nil
		if s.query != nil {
			p, err = s.query(ctx, id)
		} else if all := product.Catalogue(); int(id) <= len(all) {
			p = all[id-1]
		} else {
			err = product.ErrNotFound
		}
		switch {
		case err == nil:
			found = append(found, p)
		case !errors.Is(err, product.ErrNotFound):
			return nil, err
		}
	}
	return found, nil
}

func (s *store) Ping(ctx context.Context) error {
	if s.ping != nil {
		return s.ping(ctx)
	}
	return nil
}

func (s *store) Stats() product.Stats {
	st := product.Stats{Idle: 5, Max: 10}
	st.Queries, st.Errors = s.Load()
	return st
}

func (s *store) ResetStats() { s.Reset() }

// failing returns a store whose queries return err.
func failing(err error) *store {
	return &store{query: func(context.Context, int32) (product.Product, error) { return product.Product{}, err }}
}

// fixture is a server on a port of its own, with its log.
type fixture struct {
	*api.Server
	url string
	log *rig.Output
}

func start(t *testing.T, s *store, change func(*api.Config)) *fixture {
	t.Helper()
	group := &local.Group[string, product.Product]{}
	log := &rig.Output{}
	config := api.Config{
		Group:   local.Tier(group),
		Store:   s,
		Mode:    "local",
		Replica: "test:1",
		Tiers: func() api.Tiers {
			st := group.Stats()
			return api.Tiers{Local: &api.LocalTier{Requests: st.Requests, Leaders: st.Leaders, Followers: st.Followers, Waiting: st.Waiting,
				Batches: st.Batches, BatchRuns: st.BatchRuns, BatchKeys: st.BatchKeys}}
		},
		ResetTiers: group.ResetStats,
		Logger:     slog.New(api.RequestLog{Handler: slog.NewTextHandler(log, nil)}),
	}
	if change != nil {
		change(&config)
	}
	server, err := api.New(config)
	if err != nil {
		t.Fatal(err)
	}
	listening := httptest.NewServer(server.Handler())
	t.Cleanup(listening.Close)
	return &fixture{Server: server, url: listening.URL, log: log}
}

type response struct {
	status int
	header http.Header
	body   string
}

// send sends a request and checks the response against the document.
func (f *fixture) send(t *testing.T, method, path string, header http.Header) response {
	t.Helper()
	return f.sendBody(t, method, path, header, "")
}

func (f *fixture) sendBody(t *testing.T, method, path string, header http.Header, body string) response {
	t.Helper()
	newRequest := func() *http.Request {
		req, err := http.NewRequestWithContext(t.Context(), method, f.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(req.Header, header)
		return req
	}
	resp, err := http.DefaultClient.Do(newRequest())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	a := response{resp.StatusCode, resp.Header, string(text)}
	expectDocumented(t, newRequest(), a) // the first request's body has been read
	expectSecurityHeaders(t, a)
	return a
}

func (f *fixture) get(t *testing.T, path string) response {
	t.Helper()
	return f.send(t, http.MethodGet, path, nil)
}

func decode[T any](t *testing.T, a response) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return v
}

func expectProblem(t *testing.T, a response, status int) api.Problem {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, want %d: %s", a.status, status, a.body)
	}
	if kind := a.header.Get("Content-Type"); kind != "application/problem+json" {
		t.Errorf("Content-Type %q", kind)
	}
	p := decode[api.Problem](t, a)
	if p.Type == "" || p.Title == "" || p.Detail == "" || p.Status != status {
		t.Errorf("incomplete problem %+v", p)
	}
	return p
}

func TestNewRequiresItsParts(t *testing.T) {
	for _, c := range []api.Config{
		{},
		{Group: coalesce.Off[product.Product]{}, Mode: "off", Replica: "r"},
		{Group: coalesce.Off[product.Product]{}, Store: &store{}, Replica: "r"},
		{Group: coalesce.Off[product.Product]{}, Store: &store{}, Mode: "off"},
	} {
		if _, err := api.New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}
