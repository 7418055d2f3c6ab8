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
	"github.com/fleetcall/fleetcall/internal/rig"
)

// newLoggingServer returns a server for a test in a bubble: a function that sends it a
// request, and its log.
func newLoggingServer(t *testing.T, s *store) (ask func(ctx context.Context, path, id string) *httptest.ResponseRecorder, log *rig.Output) {
	t.Helper()
	log = &rig.Output{}
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

// logLines returns the lines of the log that have a message.
func logLines(log *rig.Output, msg string) (found []string) {
	for line := range strings.Lines(log.String()) {
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
				ask, log := newLoggingServer(t, &store{query: func(context.Context, int32) (product.Product, error) {
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
				lines := logLines(log, msg)
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
		ask, log := newLoggingServer(t, &store{query: func(ctx context.Context, _ int32) (product.Product, error) {
			<-ctx.Done()
			panic("hunter2")
		}})
		ctx, leave := context.WithCancel(t.Context())
		go ask(ctx, "/product/coalesced/7", "only")
		synctest.Wait()
		leave()
		synctest.Wait()
		if lines := logLines(log, "a request panicked"); len(lines) != 1 || !strings.Contains(lines[0], "request_id=only") {
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
			ask, log := newLoggingServer(t, &store{query: func(_ context.Context, id int32) (product.Product, error) { return product.Product{}, fails[id] }})
			for second := range 2 {
				for n := range 3 {
					for id := range fails {
						ask(t.Context(), fmt.Sprintf("/product/%s/%d", kind, id), fmt.Sprintf("id-%d-%d-%d", second, n, id))
					}
					time.Sleep(300 * time.Millisecond) // of the bubble's clock
				}
				time.Sleep(100 * time.Millisecond) // completes the second
			}
			lines := strings.Join(logLines(log, "answered with an error"), "")
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
			if n := len(logLines(log, "a query failed")); n != 6 {
				t.Errorf("%d of 6 internal errors of queries are logged:\n%s", n, log)
			}
		})
	}
}

func TestAnInternalErrorOutsideOfQueriesIsAlwaysLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ask, log := newLoggingServer(t, &store{query: func(context.Context, int32) (product.Product, error) {
			return product.Product{ID: 1, Price: math.NaN()}, nil // JSON has no NaN
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
			ask, log := newLoggingServer(t, &store{query: func(context.Context, int32) (product.Product, error) { return product.Product{}, down }})
			down = product.ErrUnavailable
			ask(t.Context(), "/product/"+kind+"/1", "goes")
			down = nil
			ask(t.Context(), "/product/"+kind+"/1", "comes")
			for msg, id := range map[string]string{"the database is unavailable": "goes", "the database is back": "comes"} {
				if lines := logLines(log, msg); len(lines) != 1 || !strings.Contains(lines[0], "request_id="+id) {
					t.Errorf("%s: %q by the request %s:\n%s", kind, msg, id, log)
				}
			}
		})
	}
}

// panickingGroup is a Group that panics after its function has returned.
type panickingGroup struct {
	coalesce.Off[product.Product]
}

func (g panickingGroup) Do(ctx context.Context, key string, fn func(context.Context) (product.Product, error)) (product.Product, coalesce.Role, error) {
	_, _, _ = g.Off.Do(ctx, key, fn)
	panic("hunter2")
}

func TestAPanicOfTheTierIsLoggedAsWell(t *testing.T) {
	f := start(t, &store{}, func(c *api.Config) { c.Group = panickingGroup{} })
	a := f.send(t, http.MethodGet, "/product/coalesced/1", http.Header{"X-Request-Id": {"mine"}})
	expectProblem(t, a, http.StatusInternalServerError)
	if lines := logLines(f.log, "a request panicked"); len(lines) != 1 || !strings.Contains(lines[0], "panickingGroup") || !strings.Contains(lines[0], "request_id=mine") {
		t.Errorf("want one line with its stack:\n%s", f.log)
	}
}

func TestRequestIDIsTheClientsUnlessItCouldForgeALog(t *testing.T) {
	log := &rig.Output{}
	f := start(t, &store{}, func(c *api.Config) {
		c.Logger = slog.New(api.RequestLog{Handler: slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})})
	})
	given := map[string]bool{}
	for id, kept := range map[string]bool{
		"abc-123": true, strings.Repeat("x", 128): true,
		"": false, "a b": false, "é": false, "a\tb": false, strings.Repeat("x", 129): false,
	} {
		got := f.send(t, http.MethodGet, "/livez", http.Header{"X-Request-Id": {id}}).header.Get("X-Request-Id")
		if (got == id) != kept || len(got) < 7 {
			t.Errorf("%q: got %q", id, got)
		}
		if given[got] {
			t.Errorf("%q is given twice", got)
		}
		given[got] = true
		if !strings.Contains(log.String(), "request_id="+got) {
			t.Errorf("%q is not in the log:\n%s", got, log)
		}
	}
}

func TestRequestsAreLoggedAtDebugOnly(t *testing.T) {
	for _, level := range []slog.Level{slog.LevelInfo, slog.LevelDebug} {
		log := &rig.Output{}
		f := start(t, &store{}, func(c *api.Config) {
			c.Logger = slog.New(api.RequestLog{Handler: slog.NewTextHandler(log, &slog.HandlerOptions{Level: level})})
		})
		f.send(t, http.MethodGet, "/product/coalesced/7777", http.Header{"X-Request-Id": {"abc"}, "Authorization": {"Bearer hunter2"}})
		logged := strings.Contains(log.String(), "path=/product/coalesced/7777 status=404") && strings.Contains(log.String(), "request_id=abc")
		if logged != (level == slog.LevelDebug) || strings.Contains(log.String(), "hunter2") {
			t.Errorf("at %v:\n%s", level, log)
		}
	}
}
