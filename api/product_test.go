package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/rig"
)

func TestProductEndpointsAnswerAsTheContractSays(t *testing.T) {
	f := start(t, &store{}, nil)
	for kind, role := range map[string]string{"normal": "none", "coalesced": "leader"} {
		t.Run(kind, func(t *testing.T) {
			a := f.get(t, "/product/"+kind+"/1")
			if a.status != http.StatusOK {
				t.Fatalf("status %d: %s", a.status, a.body)
			}
			got := decode[api.ProductResponse](t, a)
			if got.Product != product.Catalogue()[0] || got.EndpointType != kind {
				t.Errorf("got %+v", got)
			}
			if age := time.Since(time.UnixMilli(int64(got.Timestamp * 1000))); age < -time.Second || age > time.Minute {
				t.Errorf("timestamp %v is %v old", got.Timestamp, age)
			}
			for name, want := range map[string]string{
				"Content-Type": "application/json", "X-Replica": "test:1", "X-Coalesce-Role": role,
				"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
			} {
				if got := a.header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			var raw map[string]json.RawMessage
			if err := json.Unmarshal([]byte(a.body), &raw); err != nil {
				t.Fatal(err)
			}
			want := `{"id":1,"name":"MacBook Pro 16-inch","price":2499.99,"description":"Powerful laptop with M3 Pro chip"}`
			if string(raw["product"]) != want {
				t.Errorf("product %s, want %s", raw["product"], want)
			}
		})
	}
}

func TestUnknownProductIs404AndNoError(t *testing.T) {
	f := start(t, &store{}, nil)
	for _, kind := range []string{"normal", "coalesced"} {
		expectProblem(t, f.get(t, "/product/"+kind+"/1001"), http.StatusNotFound)
	}
	if st := f.Stats(); st.Errors != 0 || st.TotalRequests != 1 || st.Misses != 1 || st.Database.Queries != 2 {
		t.Errorf("%+v", st)
	}
}

func TestIDThatIsNoPositive32BitNumberIs422(t *testing.T) {
	f := start(t, failing(errors.New("must not be asked")), nil)
	for _, id := range []string{"0", "-1", "+1", "01", "1.0", "1e3", "0x1", "abc", "%20", "1%20", "2147483648", "99999999999999999999", "%D9%A1", "1%2F2", "1_0"} {
		for _, kind := range []string{"normal", "coalesced"} {
			a := f.get(t, "/product/"+kind+"/"+id)
			if a.status != http.StatusUnprocessableEntity {
				t.Errorf("%s: status %d", id, a.status)
				continue
			}
			expectProblem(t, a, http.StatusUnprocessableEntity)
		}
	}
	if a := start(t, &store{}, nil).get(t, "/product/normal/2147483647"); a.status != http.StatusNotFound {
		t.Errorf("the largest id: status %d", a.status)
	}
}

func TestErrorsOfTheQueryBecomeTheContractsProblems(t *testing.T) {
	const secret = "host=db.internal password=hunter2"
	wrap := func(err error) error { return fmt.Errorf("%s: %w", secret, err) }
	remote := func(err error) error {
		return &coalesce.RemoteError{Message: secret, Names: coalesce.ErrorNames(err)}
	}
	for name, c := range map[string]struct {
		err    error
		status int
		retry  bool
	}{
		"database down":                    {wrap(product.ErrUnavailable), 503, true},
		"database down, elsewhere":         {remote(product.ErrUnavailable), 503, true},
		"pool wait over its limit":         {wrap(product.ErrBusy), 503, true},
		"pool wait, elsewhere":             {remote(product.ErrBusy), 503, true},
		"flight timeout":                   {wrap(coalesce.ErrFlightTimeout), 504, false},
		"flight timeout, elsewhere":        {remote(coalesce.ErrFlightTimeout), 504, false},
		"deadline":                         {context.DeadlineExceeded, 504, false},
		"not found, elsewhere":             {remote(product.ErrNotFound), 404, false},
		"Redis, failing closed":            {wrap(coalesce.ErrUnavailable), 503, true},
		"every leader died":                {wrap(coalesce.ErrPoisoned), 503, true},
		"closed":                           {coalesce.ErrClosed, 503, true},
		"panic elsewhere":                  {wrap(coalesce.ErrRemotePanic), 500, false},
		"anything else":                    {errors.New(secret), 500, false},
		"anything else, on another server": {&coalesce.RemoteError{Message: secret}, 500, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, failing(c.err), nil)
			for _, kind := range []string{"normal", "coalesced"} {
				a := f.get(t, "/product/"+kind+"/1")
				expectProblem(t, a, c.status)
				if strings.Contains(a.body, "hunter2") || strings.Contains(a.body, "db.internal") {
					t.Errorf("internals leak: %s", a.body)
				}
				if got := a.header.Get("Retry-After") != ""; got != c.retry {
					t.Errorf("Retry-After: %q", a.header.Get("Retry-After"))
				}
			}
			wantErrors := uint64(1)
			if c.status == http.StatusNotFound {
				wantErrors = 0
			}
			if st := f.Stats(); st.Errors != wantErrors || st.Misses != 0 {
				t.Errorf("no query was sent, %d error expected: %+v", wantErrors, st)
			}
		})
	}
}

func TestDatabaseThatGoesAndComesBackIsLoggedOncePerChange(t *testing.T) {
	var down atomic.Bool
	s := &store{}
	s.query = func(context.Context, int32) (product.Product, error) {
		if down.Load() {
			return product.Product{}, product.ErrUnavailable
		}
		return product.Catalogue()[0], nil
	}
	f := start(t, s, nil)
	for _, state := range []bool{false, true, true, true, false, false} {
		down.Store(state)
		f.get(t, "/product/normal/1")
		f.get(t, "/product/coalesced/1")
	}
	for _, line := range []string{"the database is unavailable", "the database is back"} {
		if n := strings.Count(f.log.String(), `msg="`+line); n != 1 {
			t.Errorf("%q is logged %d times:\n%s", line, n, f.log)
		}
	}
}

func TestPanicOfTheQueryIs500WithoutInternalsAndLoggedOnceWithItsStack(t *testing.T) {
	release := make(chan struct{})
	s := &store{}
	f := start(t, s, nil)
	s.query = func(ctx context.Context, _ int32) (product.Product, error) {
		s.Sent(ctx)
		<-release
		panic("hunter2")
	}
	const callers = 20
	answers := make(chan response, callers)
	for range callers {
		go func() { answers <- f.get(t, "/product/coalesced/1") }()
	}
	for f.Stats().Tiers.Local.Requests != callers {
		time.Sleep(time.Millisecond) // no event announces it
	}
	close(release)
	for range callers {
		a := <-answers
		expectProblem(t, a, http.StatusInternalServerError)
		if strings.Contains(a.body, "hunter2") {
			t.Errorf("internals leak: %s", a.body)
		}
	}
	if log := f.log.String(); strings.Count(log, "a request panicked") != 1 || !strings.Contains(log, "api_test.go") {
		t.Errorf("want one entry with the function's stack:\n%s", log)
	}
	if st := f.Stats(); st.Errors != callers || st.Misses != 1 || st.Hits != 0 || st.ActiveCalls != 0 {
		t.Errorf("%+v", st)
	}

	expectProblem(t, f.get(t, "/product/normal/1"), http.StatusInternalServerError)
	if log := f.log.String(); strings.Count(log, "a request panicked") != 2 {
		t.Errorf("the normal endpoint's panic is not logged:\n%s", log)
	}
}

func TestThousandRequestsShareOneQueryAndStatsSaySo(t *testing.T) {
	release := make(chan struct{})
	s := &store{}
	s.query = func(ctx context.Context, id int32) (product.Product, error) {
		<-release
		s.Sent(ctx)
		return product.Catalogue()[id-1], nil
	}
	f := start(t, s, nil)
	var all sync.WaitGroup
	var leaders atomic.Int64
	for range 1000 {
		all.Go(func() {
			// The request goes to the handler directly, because a thousand sockets
			// would add nothing.
			w := httptest.NewRecorder()
			f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/product/coalesced/1", nil))
			if w.Code != http.StatusOK {
				t.Errorf("status %d", w.Code)
			}
			if w.Header().Get("X-Coalesce-Role") == "leader" {
				leaders.Add(1)
			}
			// The counts must include a request before its response arrives.
			if st := f.Stats(); st.Hits+st.Misses == 0 {
				t.Error("answered before it was counted")
			}
		})
	}
	for f.Stats().ActiveCalls != 1000 || f.Stats().Tiers.Local.Requests != 1000 {
		time.Sleep(time.Millisecond) // no event announces it
	}
	close(release)
	all.Wait()
	st := f.Stats()
	if leaders.Load() != 1 || st.Hits != 999 || st.Misses != 1 || st.Errors != 0 || st.ActiveCalls != 0 || st.HitRate != "99.9%" ||
		st.TotalRequests != 1000 || st.QueriesPrevented != 999 || st.Database.Queries != 1 || st.Tiers.Local.HitRate != "99.9%" {
		t.Errorf("%d leaders, %+v", leaders.Load(), st)
	}
}

func TestClientThatLeavesIsNoError(t *testing.T) {
	s := &store{}
	s.query = func(ctx context.Context, _ int32) (product.Product, error) {
		<-ctx.Done()
		return product.Product{}, ctx.Err()
	}
	log := &rig.Output{}
	f := start(t, s, func(c *api.Config) {
		c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	w := httptest.NewRecorder()
	go func() {
		defer close(done)
		f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/product/coalesced/1", nil).WithContext(ctx))
	}()
	for f.Stats().ActiveCalls != 1 {
		time.Sleep(time.Millisecond) // no event announces it
	}
	cancel()
	<-done
	if w.Body.Len() != 0 {
		t.Errorf("something was written: %s", w.Body)
	}
	if text := log.String(); !strings.Contains(text, "client_gone=true") || strings.Contains(text, "status=") || strings.Contains(text, "level=WARN") {
		t.Errorf("a request that was never answered is logged as\n%s", text)
	}
	if st := f.Stats(); st.Errors != 0 || st.Hits != 0 || st.Misses != 0 || st.ActiveCalls != 0 || st.TotalRequests != 1 {
		t.Errorf("%+v", st)
	}
}
