package httpmatrix_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/internal/proof/httpmatrix"
)

// TestEchoKeepsTheRules has the Middleware in an echo application, by echo.WrapMiddleware.
func TestEchoKeepsTheRules(t *testing.T) {
	httpmatrix.Run(t, httpmatrix.Front{Start: func(t testing.TB, origin http.Handler, n int, s httpmatrix.Settings) httpmatrix.Replicas {
		return start(t, n, func(group coalescehttp.Group) http.Handler {
			e := echo.New()
			e.Use(middleware.RequestID(), middleware.Recover(), echo.WrapMiddleware(coalescehttp.Middleware(group, options(s)...)))
			e.Any("/*", echo.WrapHandler(origin))
			return e
		})
	}})
}

// TestEchosOwnFieldsAreEachClientsOwn is for what echo's middlewares set outside of ours,
// and for its error handler, which writes inside of it.
func TestEchosOwnFieldsAreEachClientsOwn(t *testing.T) {
	for _, item := range []struct {
		id, body string
		status   int
	}{{"7", "\"7\"\n", http.StatusOK}, {"0", "{\"message\":\"no such item\"}\n", http.StatusNotFound}} {
		inside, release := make(chan struct{}, 10), make(chan struct{})
		replicas := start(t, 2, func(group coalescehttp.Group) http.Handler {
			e := echo.New()
			e.Use(middleware.RequestID(), echo.WrapMiddleware(coalescehttp.Middleware(group)))
			e.GET("/item/:id", func(c echo.Context) error {
				inside <- struct{}{}
				<-release
				if c.Param("id") == "0" {
					return echo.NewHTTPError(http.StatusNotFound, "no such item")
				}
				return c.JSON(http.StatusOK, c.Param("id"))
			})
			return e
		})
		q := httpmatrix.Request{Method: http.MethodGet, Target: "/item/" + item.id, Host: "echo.example"}
		client := &http.Transport{}
		type answer struct {
			id, role, body string
			status         int
		}
		answers := make(chan answer, 2)
		ask := func(url string) {
			r := httptest.NewRequest(q.Method, url+q.Target, nil)
			r.RequestURI, r.Host = "", q.Host
			resp, err := client.RoundTrip(r)
			if err != nil {
				answers <- answer{body: err.Error()}
				return
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			answers <- answer{resp.Header.Get(echo.HeaderXRequestID), resp.Header.Get(coalescehttp.RoleHeader), string(body), resp.StatusCode}
		}
		go ask(replicas.URLs[0])
		<-inside
		go ask(replicas.URLs[1])
		for replicas.Waiting() < 2 {
			time.Sleep(time.Millisecond)
		}
		close(release)
		a, b := <-answers, <-answers
		client.CloseIdleConnections()
		if a.id == "" || a.id == b.id || a.body != item.body || b.body != item.body || a.status != item.status || b.status != item.status {
			t.Errorf("%+v\n%+v", a, b)
		}
	}
}
