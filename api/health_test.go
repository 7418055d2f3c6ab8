package api_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/internal/product"
)

func TestHealthChecksAtTheSameTimeShareOnePingAlthoughTheFirstClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		pings := 0
		release := make(chan struct{})
		ask, _ := newLoggingServer(t, &store{ping: func(ctx context.Context) error {
			mu.Lock()
			pings++
			mu.Unlock()
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
		first, leave := context.WithCancel(t.Context())
		left := make(chan *httptest.ResponseRecorder, 1)
		go func() { left <- ask(first, "/health", "first") }()
		synctest.Wait()
		var all sync.WaitGroup
		for range 300 {
			all.Go(func() {
				if w := ask(t.Context(), "/health", "another"); w.Code != http.StatusOK {
					t.Errorf("status %d", w.Code)
				}
			})
		}
		synctest.Wait()
		leave()
		<-left
		close(release)
		all.Wait()
		if pings != 1 {
			t.Errorf("%d pings, want one for all", pings)
		}
		if ask(t.Context(), "/health", "later"); pings != 2 {
			t.Errorf("%d pings, want a new one for who comes later", pings)
		}
	})
}

func TestAPingThatHangsIsGivenUpAlthoughSomebodyAlwaysWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var once sync.Once
		ask, _ := newLoggingServer(t, &store{ping: func(ctx context.Context) error {
			once.Do(func() { <-ctx.Done() })
			return ctx.Err()
		}})
		var all sync.WaitGroup
		answers := make([]int, 4)
		for i := range answers {
			all.Go(func() { answers[i] = ask(t.Context(), "/health", "waits").Code })
			time.Sleep(1500 * time.Millisecond) // of the bubble's clock: shorter than the timeout of a ping
		}
		all.Wait()
		if want := []int{503, 503, 200, 200}; !slices.Equal(answers, want) {
			t.Errorf("statuses %v, want %v", answers, want)
		}
	})
}

func TestHealth(t *testing.T) {
	for name, c := range map[string]struct {
		ping   error
		redis  api.RedisStatus
		status int
		want   api.Health
	}{
		"all well":        {nil, api.RedisConnected, 200, api.Health{Status: "healthy", Database: "connected", Redis: "connected"}},
		"without Redis":   {nil, api.RedisDisabled, 200, api.Health{Status: "healthy", Database: "connected", Redis: "disabled"}},
		"Redis down":      {nil, api.RedisDegraded, 200, api.Health{Status: "degraded", Database: "connected", Redis: "degraded"}},
		"database down":   {product.ErrUnavailable, api.RedisConnected, 503, api.Health{Status: "unhealthy", Database: "disconnected", Redis: "connected"}},
		"everything gone": {product.ErrUnavailable, api.RedisDegraded, 503, api.Health{Status: "unhealthy", Database: "disconnected", Redis: "degraded"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, &store{ping: func(context.Context) error { return c.ping }}, func(cfg *api.Config) {
				cfg.Redis = func(context.Context) api.RedisStatus { return c.redis }
			})
			c.want.Mode, c.want.Replica = "local", "test:1"
			a := f.get(t, "/health")
			if got := decode[api.Health](t, a); a.status != c.status || got != c.want {
				t.Errorf("status %d, %+v, want %d, %+v", a.status, got, c.status, c.want)
			}
		})
	}
}

func TestReadinessIsWhatTheProgramSaysUntilTheServerDrains(t *testing.T) {
	readiness := api.Starting
	f := start(t, &store{}, func(c *api.Config) { c.Readiness = func() api.Readiness { return readiness } })
	expect := func(status int, want api.Readiness) {
		t.Helper()
		a := f.get(t, "/readyz")
		if got := decode[api.ReadinessResponse](t, a); a.status != status || got.Status != want {
			t.Errorf("status %d, %+v, want %d, %s", a.status, got, status, want)
		}
	}
	expect(http.StatusServiceUnavailable, api.Starting)
	readiness = api.Refused
	expect(http.StatusServiceUnavailable, api.Refused)
	a := f.get(t, "/health")
	if got := decode[api.Health](t, a); a.status != http.StatusServiceUnavailable || got.Status != "unhealthy" || got.Database != "refused" {
		t.Errorf("status %d, %+v", a.status, got)
	}
	readiness = api.Ready
	expect(http.StatusOK, api.Ready)
	f.Drain()
	expect(http.StatusServiceUnavailable, api.Stopping)
}
