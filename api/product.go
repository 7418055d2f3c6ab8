package api

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/product"
)

// ProductAnswer is what the two product endpoints answer.
type ProductAnswer struct {
	QueryTimeMS  float64         `json:"query_time_ms"` // what this request waited for its result
	Timestamp    float64         `json:"timestamp"`     // Unix seconds of the answer
	Product      product.Product `json:"product"`
	EndpointType string          `json:"endpoint_type"` // normal or coalesced
}

// normal runs a query of its own for every request.
func (s *Server) normal(c echo.Context) error {
	id, err := parseID(c.Param("id"))
	if err != nil {
		return err
	}
	start := time.Now()
	setRole(c, 0)
	s.hot.Add(id, start)
	ctx := contextOf(c)
	p, err := s.config.Store.Product(ctx, id)
	s.latency.normal.add(time.Since(start))
	s.noteDatabase(ctx, id, err)
	if err != nil {
		return logged{err}
	}
	return s.answerProduct(c, p, start, "normal")
}

// coalesced shares one query between the requests for a product.
func (s *Server) coalesced(c echo.Context) error {
	id, err := parseID(c.Param("id"))
	if err != nil {
		return err
	}
	start := time.Now()
	s.hot.Add(id, start)
	p, role, err := s.call(contextOf(c), id)
	s.latency.add(role, time.Since(start))
	setRole(c, role)
	if err != nil {
		return logged{err}
	}
	return s.answerProduct(c, p, start, "coalesced")
}

// call is one coalesced call. It is the context of its flight, too, if it begins
// one: a call that does not costs no more for it.
type call struct {
	requestContext
	// Set by the function's goroutine, which may outlive the call.
	ran  atomic.Bool // this very call ran the query
	told atomic.Bool // which panicked, and that was logged
}

// call runs one coalesced call and counts it. The counts are final when it
// returns.
func (s *Server) call(ctx requestContext, id int32) (p product.Product, role coalesce.Role, err error) {
	s.counts.total.Add(1)
	s.counts.active.Add(1)
	defer s.counts.active.Add(-1)
	c := &call{requestContext: ctx}
	p, role, err = s.do(c, id)
	switch {
	case err == nil, errors.Is(err, product.ErrNotFound):
		if !c.ran.Load() {
			s.counts.hits.Add(1)
		}
	case ctx.Err() == nil: // a client that left gets no answer, and so no error
		s.counts.errors.Add(1)
	}
	return p, role, err
}

func (s *Server) do(c *call, id int32) (p product.Product, role coalesce.Role, err error) {
	defer func() {
		if value := recover(); value != nil {
			panicked := newPanicked(value)
			if c.ran.Load() && !c.told.Load() { // it was not the query that panicked
				s.logPanic(c, panicked, slog.Int("product", int(id)))
			}
			err = panicked
		}
	}()
	return s.config.Group.Do(c, keyOf(id), func(ctx context.Context) (product.Product, error) { return s.query(ctx, c, id) })
}

// query runs the one query of a flight, and logs what went wrong with it. Only
// here that is done once, for all who wait, whoever of them has left.
func (s *Server) query(ctx context.Context, c *call, id int32) (product.Product, error) {
	c.ran.Store(true)
	defer func() {
		if value := recover(); value != nil {
			c.told.Store(true)
			s.logPanic(ctx, newPanicked(value), slog.Int("product", int(id)))
			panic(value)
		}
	}()
	p, err := s.config.Store.Product(product.OnQuery(ctx, func() {
		s.counts.misses.Add(1)
		product.QuerySent(ctx) // the burst's own count, if this is a burst
	}), id)
	s.noteDatabase(ctx, id, err)
	return p, err
}

// roleHeaders are the values of X-Coalesce-Role, shared by all answers.
var roleHeaders = func() (headers [coalesce.Cached + 1][]string) {
	for role := range headers {
		headers[role] = []string{coalesce.Role(role).String()}
	}
	return headers
}()

func setRole(c echo.Context, role coalesce.Role) {
	c.Response().Header()["X-Coalesce-Role"] = roleHeaders[role]
}

func keyOf(id int32) string { return "product:" + strconv.Itoa(int(id)) }

func (s *Server) answerProduct(c echo.Context, p product.Product, start time.Time, endpoint string) error {
	now := time.Now()
	body, err := s.encoded.answer(ProductAnswer{
		QueryTimeMS:  math.Round(float64(now.Sub(start))/float64(time.Millisecond)*100) / 100,
		Timestamp:    float64(now.UnixMilli()) / 1000,
		Product:      p,
		EndpointType: endpoint,
	})
	if err != nil {
		return err
	}
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, body)
}

// parseID takes what a link has: digits, with nothing before or after them.
func parseID(text string) (int32, error) {
	id, err := strconv.ParseUint(text, 10, 31)
	if err != nil || id == 0 || text[0] == '0' {
		return 0, problemBadID
	}
	return int32(id), nil
}

// noteDatabase logs when the database goes away and when it is back, and every
// error of a query that is nobody's fault but ours. ctx is what the query ran
// under.
func (s *Server) noteDatabase(ctx context.Context, id int32, err error) {
	switch {
	case err == nil, errors.Is(err, product.ErrNotFound):
		if s.dbDown.Load() && s.dbDown.CompareAndSwap(true, false) {
			s.log.InfoContext(ctx, "the database is back")
		}
	case ctx.Err() != nil:
	case errors.Is(err, product.ErrUnavailable):
		if s.dbDown.CompareAndSwap(false, true) {
			s.log.WarnContext(ctx, "the database is unavailable", slog.Any("error", err))
		}
	case problemOf(err) == problemInternal:
		s.log.ErrorContext(ctx, "a query failed", slog.Any("error", err), slog.Int("product", int(id)))
	}
}
