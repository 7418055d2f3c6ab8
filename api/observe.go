package api

import (
	"context"
	"time"

	"github.com/labstack/echo/v4"
)

// Request is one that was answered.
type Request struct {
	Context context.Context // the request's
	Method  string
	Route   string // the pattern of its path, such as /product/normal/:id; empty: no endpoint
	Status  int    // 0 when the client left before it had an answer
	Took    time.Duration
}

// observeRequests comes first, so that it sees what the others answer.
func (s *Server) observeRequests(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		if err := next(c); err != nil {
			c.Error(err) // now, so that the status below is the one sent
		}
		r := Request{Context: c.Request().Context(), Method: c.Request().Method, Route: c.Path(), Took: time.Since(start)}
		if c.Response().Committed {
			r.Status = c.Response().Status
		}
		s.config.Requested(r)
		return nil
	}
}

// metrics has the program's handler answer.
func (s *Server) metrics(c echo.Context) error {
	if s.config.Metrics == nil {
		return echo.ErrNotFound
	}
	s.config.Metrics.ServeHTTP(c.Response(), c.Request())
	return nil
}
