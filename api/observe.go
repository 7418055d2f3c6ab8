package api

import (
	"context"
	"time"

	"github.com/labstack/echo/v4"
)

// Request describes a request that has ended.
type Request struct {
	Context context.Context // the request's own
	Method  string
	Route   string // the pattern of the path, such as /product/normal/:id; empty if no endpoint matched
	Status  int    // 0 if the client left before a response was sent
	Took    time.Duration
}

// observeRequests is the outermost middleware, so that it sees the responses that other
// middleware writes.
func (s *Server) observeRequests(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		if err := next(c); err != nil {
			c.Error(err) // write the error response now, so that the status reported below is the one sent
		}
		r := Request{Context: c.Request().Context(), Method: c.Request().Method, Route: c.Path(), Took: time.Since(start)}
		if c.Response().Committed {
			r.Status = c.Response().Status
		}
		s.config.Requested(r)
		return nil
	}
}

// metrics passes the request on to the handler from the Config.
func (s *Server) metrics(c echo.Context) error {
	if s.config.Metrics == nil {
		return echo.ErrNotFound
	}
	s.config.Metrics.ServeHTTP(c.Response(), c.Request())
	return nil
}
