package api_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/internal/product"
)

func TestRequestsAreReportedWithTheirRouteAndStatus(t *testing.T) {
	var mu sync.Mutex
	var told []string
	ctx, leave := context.WithCancel(context.Background())
	s := &store{query: func(_ context.Context, id int32) (product.Product, error) {
		switch id {
		case 1:
			return product.Product{ID: 1}, nil
		case 2:
			panic("boom")
		case 3:
			leave()
			return product.Product{}, context.Canceled
		}
		return product.Product{}, errors.New("broken")
	}}
	f := start(t, s, func(c *api.Config) {
		c.Requested = func(r api.Request) {
			mu.Lock()
			defer mu.Unlock()
			if r.Context == nil || r.Took <= 0 || r.Took > time.Minute {
				t.Errorf("told of %+v", r)
			}
			told = append(told, fmt.Sprintf("%s %q %d", r.Method, r.Route, r.Status))
		}
	})
	for _, path := range []string{"/product/normal/1", "/product/coalesced/2", "/product/normal/4", "/product/normal/x", "/nothing/to/see", "/livez/x"} {
		f.get(t, path)
	}
	f.send(t, http.MethodHead, "/product/normal/1", nil)
	f.send(t, http.MethodPost, "/livez", nil)
	f.send(t, http.MethodPost, "/stats/reset", nil)
	f.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/product/normal/3", nil))
	want := []string{
		`GET "/product/normal/:id" 200`, `GET "/product/coalesced/:id" 500`, `GET "/product/normal/:id" 500`, `GET "/product/normal/:id" 422`,
		`GET "" 404`, `GET "" 404`, `HEAD "/product/normal/:id" 200`, `POST "/livez" 405`, `POST "/stats/reset" 200`, `GET "/product/normal/:id" 0`,
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(told, want) {
		t.Errorf("told\n%q\nwant\n%q", told, want)
	}
}

func TestConfigAroundSeesEveryRequestOfTheServer(t *testing.T) {
	f := start(t, &store{}, func(c *api.Config) {
		c.Around = func(inner http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Around", "1")
				inner.ServeHTTP(w, r)
			})
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- f.Serve(l) }()
	defer func() {
		http.DefaultClient.CloseIdleConnections()
		if err := errors.Join(f.Shutdown(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	}()
	resp, err := http.Get("http://" + l.Addr().String() + "/livez") //nolint:noctx // a context would add nothing to this test
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.Header.Get("X-Around") != "1" {
		t.Error("it did not")
	}
}
