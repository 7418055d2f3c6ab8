package api_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
	"github.com/fleetcall/fleetcall/internal/product"
)

// inside returns a server for a test in a bubble, where no time passes while
// somebody works, what sends it a request, and what it logs.
func inside(t *testing.T, s *store) (ask func(ctx context.Context, path, id string) *httptest.ResponseRecorder, log *buffer) {
	t.Helper()
	log = &buffer{}
	server, err := api.New(api.Config{
		Group: local.Tier(&local.Group[string, product.Product]{}), Store: s, Mode: "local", Replica: "r",
		Logger: slog.New(api.RequestLog{Handler: slog.NewTextHandler(log, nil)}),
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, path, id string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil)
		r.Header.Set("X-Request-Id", id)
		server.Handler().ServeHTTP(w, r)
		return w
	}, log
}

// lines returns the lines of the log with a message.
func (b *buffer) lines(msg string) (found []string) {
	for line := range strings.Lines(b.String()) {
		if strings.Contains(line, `msg="`+msg+`"`) {
			found = append(found, line)
		}
	}
	return found
}

func TestAQueryThatFailsIsLoggedOnceThoughTheCallerThatBeganItHasLeft(t *testing.T) {
	for msg, fail := range map[string]func() error{
		"a query failed":     func() error { return errors.New("hunter2") },
		"a request panicked": func() error { panic("hunter2") },
	} {
		t.Run(msg, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				ask, log := inside(t, &store{query: func(context.Context, int32) (product.Product, error) {
					<-release
					return product.Product{}, fail()
				}})
				first, leave := context.WithCancel(t.Context())
				var all sync.WaitGroup
				all.Go(func() {
					if w := ask(first, "/product/coalesced/7", "first"); w.Body.Len() != 0 {
						t.Errorf("the one who left was answered %d", w.Code)
					}
				})
				synctest.Wait()
				for _, id := range []string{"second", "third"} {
					all.Go(func() {
						if w := ask(t.Context(), "/product/coalesced/7", id); w.Code != http.StatusInternalServerError {
							t.Errorf("%s: status %d", id, w.Code)
						}
					})
				}
				synctest.Wait()
				leave()
				synctest.Wait()
				close(release)
				all.Wait()
				lines := log.lines(msg)
				if len(lines) != 1 || !strings.Contains(lines[0], "level=ERROR") || !strings.Contains(lines[0], "hunter2") ||
					!strings.Contains(lines[0], "product=7") || !strings.Contains(lines[0], "request_id=first") {
					t.Errorf("want one line, with the first one's id:\n%s", log)
				}
				if msg == "a request panicked" && !strings.Contains(log.String(), "log_test.go") {
					t.Errorf("not the stack of the query:\n%s", log)
				}
			})
		})
	}
}

func TestAPanicIsLoggedThoughNobodyWaitsForTheQueryAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ask, log := inside(t, &store{query: func(ctx context.Context, _ int32) (product.Product, error) {
			<-ctx.Done()
			panic("hunter2")
		}})
		ctx, leave := context.WithCancel(t.Context())
		go ask(ctx, "/product/coalesced/7", "only")
		synctest.Wait()
		leave()
		synctest.Wait()
		if lines := log.lines("a request panicked"); len(lines) != 1 || !strings.Contains(lines[0], "request_id=only") {
			t.Errorf("want one line:\n%s", log)
		}
	})
}

func TestServerErrorsAreLoggedWithTheirRequestOnceASecondForEachType(t *testing.T) {
	fails := map[int32]error{
		1: coalesce.ErrFlightTimeout, 2: product.ErrBusy, 3: product.ErrUnavailable, 4: coalesce.ErrUnavailable, 5: coalesce.ErrClosed,
		6: &coalesce.RemoteError{Message: "another replica's"}, 7: product.ErrNotFound,
	}
	types := []string{
		1: "status=504 type=query-timeout", "status=503 type=database-busy", "status=503 type=database-unavailable",
		"status=503 type=coordination-unavailable", "status=503 type=stopping", "status=500 type=internal",
	}
	for _, kind := range []string{"normal", "coalesced"} {
		synctest.Test(t, func(t *testing.T) {
			ask, log := inside(t, &store{query: func(_ context.Context, id int32) (product.Product, error) { return product.Product{}, fails[id] }})
			for second := range 2 {
				for n := range 3 {
					for id := range fails {
						ask(t.Context(), fmt.Sprintf("/product/%s/%d", kind, id), fmt.Sprintf("id-%d-%d-%d", second, n, id))
					}
					time.Sleep(300 * time.Millisecond) // of the bubble's
				}
				time.Sleep(100 * time.Millisecond) // a second is over
			}
			lines := strings.Join(log.lines("answered with an error"), "")
			if n := strings.Count(lines, "\n"); n != 2*6 || strings.Contains(lines, "ERROR") {
				t.Errorf("%d lines in two seconds, want one of each type and second:\n%s", n, log)
			}
			for id, kindOf := range types {
				for second := range 2 {
					if id > 0 && !strings.Contains(lines, fmt.Sprintf("%s error=%q method=GET path=/product/%s/%d request_id=id-%d-0-%d\n", kindOf, fails[int32(id)], kind, id, second, id)) {
						t.Errorf("%s of second %d is not logged with its first request:\n%s", kindOf, second, lines)
					}
				}
			}
			if n := len(log.lines("a query failed")); n != 6 {
				t.Errorf("%d of 6 internal errors of queries are logged:\n%s", n, log)
			}
		})
	}
}

func TestAnInternalErrorThatIsNoQuerysIsAlwaysLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ask, log := inside(t, &store{query: func(context.Context, int32) (product.Product, error) {
			return product.Product{ID: 1, Price: math.NaN()}, nil // which JSON does not have
		}})
		for _, id := range []string{"one", "two"} {
			if w := ask(t.Context(), "/product/normal/1", id); w.Code != http.StatusInternalServerError {
				t.Errorf("status %d", w.Code)
			}
		}
		if text := log.String(); strings.Count(text, "level=ERROR") != 2 || strings.Count(text, "NaN") != 2 ||
			!strings.Contains(text, "request_id=one") || !strings.Contains(text, "request_id=two") {
			t.Errorf("want both:\n%s", text)
		}
	})
}

func TestTheDatabasesChangesAreLoggedWithTheRequestThatNoticed(t *testing.T) {
	for _, kind := range []string{"normal", "coalesced"} {
		synctest.Test(t, func(t *testing.T) {
			var down error
			ask, log := inside(t, &store{query: func(context.Context, int32) (product.Product, error) { return product.Product{}, down }})
			down = product.ErrUnavailable
			ask(t.Context(), "/product/"+kind+"/1", "goes")
			down = nil
			ask(t.Context(), "/product/"+kind+"/1", "comes")
			for msg, id := range map[string]string{"the database is unavailable": "goes", "the database is back": "comes"} {
				if lines := log.lines(msg); len(lines) != 1 || !strings.Contains(lines[0], "request_id="+id) {
					t.Errorf("%s: %q by the request %s:\n%s", kind, msg, id, log)
				}
			}
		})
	}
}

// toppling is a Group that panics after its function has returned.
type toppling struct {
	coalesce.Off[product.Product]
}

func (g toppling) Do(ctx context.Context, key string, fn func(context.Context) (product.Product, error)) (product.Product, coalesce.Role, error) {
	_, _, _ = g.Off.Do(ctx, key, fn)
	panic("hunter2")
}

func TestAPanicOfTheTierIsLoggedAsWell(t *testing.T) {
	f := start(t, &store{}, func(c *api.Config) { c.Group = toppling{} })
	a := f.send(t, http.MethodGet, "/product/coalesced/1", http.Header{"X-Request-Id": {"mine"}})
	expectProblem(t, a, http.StatusInternalServerError)
	if lines := f.log.lines("a request panicked"); len(lines) != 1 || !strings.Contains(lines[0], "toppling") || !strings.Contains(lines[0], "request_id=mine") {
		t.Errorf("want one line with its stack:\n%s", f.log)
	}
}
