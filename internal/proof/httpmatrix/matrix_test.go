package httpmatrix_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/coalesce/coalescetest"
	"github.com/fleetcall/fleetcall/internal/proof/httpmatrix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMiddlewareKeepsTheRules(t *testing.T) {
	httpmatrix.Run(t, httpmatrix.Front{Start: func(t testing.TB, origin http.Handler, n int, s httpmatrix.Settings) httpmatrix.Replicas {
		return start(t, n, func(group coalescehttp.Group) http.Handler {
			return coalescehttp.Middleware(group, options(s)...)(origin)
		})
	}})
}

// TestTransportKeepsTheRules has a Transport in a reverse proxy, which sends on what comes
// in.
func TestTransportKeepsTheRules(t *testing.T) {
	httpmatrix.Run(t, httpmatrix.Front{Start: func(t testing.TB, origin http.Handler, n int, s httpmatrix.Settings) httpmatrix.Replicas {
		server := httptest.NewServer(origin)
		t.Cleanup(server.Close)
		to, err := url.Parse(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		base := &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true}
		t.Cleanup(base.CloseIdleConnections)
		return start(t, n, func(group coalescehttp.Group) http.Handler {
			return &httputil.ReverseProxy{
				Transport: coalescehttp.NewTransport(base, group, options(s)...),
				Rewrite: func(r *httputil.ProxyRequest) {
					r.SetURL(to)
					r.Out.Host = r.In.Host
				},
			}
		})
	}})
}

// start starts replicas whose groups are of one fleet.
func start(t testing.TB, n int, front func(coalescehttp.Group) http.Handler) httpmatrix.Replicas {
	fleet := coalescetest.NewFleet()
	var groups []*coalescetest.Group[*coalescehttp.Answer]
	var urls []string
	for range n {
		group := coalescetest.NewGroup[*coalescehttp.Answer](fleet, "matrix")
		server := httptest.NewServer(front(group))
		t.Cleanup(server.Close)
		groups, urls = append(groups, group), append(urls, server.URL)
	}
	return httpmatrix.Replicas{URLs: urls, Waiting: func() (waiting int) {
		for _, group := range groups {
			waiting += group.Waiting()
		}
		return waiting
	}}
}

func options(s httpmatrix.Settings) []coalescehttp.Option {
	opts := []coalescehttp.Option{coalescehttp.WithKeyFields(s.KeyFields...)}
	if s.IdentityField != "" {
		opts = append(opts, coalescehttp.WithIdentity(func(r *http.Request) string { return r.Header.Get(s.IdentityField) }))
	}
	if s.Cookies {
		opts = append(opts, coalescehttp.WithCookies())
	}
	if s.SortedQuery {
		opts = append(opts, coalescehttp.WithSortedQuery())
	}
	if s.QueryParameters != nil {
		opts = append(opts, coalescehttp.WithQueryParameters(s.QueryParameters...))
	}
	if s.BodyLimit > 0 {
		opts = append(opts, coalescehttp.WithBodyLimit(s.BodyLimit))
	}
	return opts
}
