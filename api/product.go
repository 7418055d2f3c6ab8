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

	"fleetcall/coalesce"
	"fleetcall/internal/product"
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
	p, err := s.config.Store.Product(c.Request().Context(), id)
	s.latency.normal.add(time.Since(start))
	s.noteDatabase(c, err)
	if err != nil {
		return err
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
	p, role, ran, err := s.call(c.Request().Context(), id)
	s.latency.add(role, time.Since(start))
	setRole(c, role)
	if ran {
		s.noteDatabase(c, err)
	}
	if err != nil {
		// Every caller of the flight has this panic; one log entry is enough.
		if p, ok := errors.AsType[*panicked](err); ok && ran {
			s.logPanic(c, p)
		}
		return err
	}
	return s.answerProduct(c, p, start, "coalesced")
}

// call runs one coalesced call and counts it. The counts are final when it
// returns. ran tells whether this very call ran the query.
func (s *Server) call(ctx context.Context, id int32) (p product.Product, role coalesce.Role, ran bool, err error) {
	s.counts.total.Add(1)
	s.counts.active.Add(1)
	defer s.counts.active.Add(-1)
	var mine atomic.Bool // set by the function's goroutine, which may outlive the call
	p, role, err = s.do(ctx, id, &mine)
	ran = mine.Load()
	switch {
	case err == nil, errors.Is(err, product.ErrNotFound):
		if !ran {
			s.counts.hits.Add(1)
		}
	case ctx.Err() == nil: // a client that left gets no answer, and so no error
		s.counts.errors.Add(1)
	}
	return p, role, ran, err
}

func (s *Server) do(ctx context.Context, id int32, ran *atomic.Bool) (p product.Product, role coalesce.Role, err error) {
	defer func() {
		if value := recover(); value != nil {
			err = newPanicked(value)
		}
	}()
	return s.config.Group.Do(ctx, keyOf(id), func(ctx context.Context) (product.Product, error) {
		ran.Store(true)
		return s.config.Store.Product(product.OnQuery(ctx, func() {
			s.counts.misses.Add(1)
			product.QuerySent(ctx) // the burst's own count, if this is a burst
		}), id)
	})
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
// error that is nobody's fault but ours.
func (s *Server) noteDatabase(c echo.Context, err error) {
	switch {
	case err == nil, errors.Is(err, product.ErrNotFound):
		if s.dbDown.Load() && s.dbDown.CompareAndSwap(true, false) {
			s.log.Info("the database is back")
		}
	case c.Request().Context().Err() != nil:
	case errors.Is(err, product.ErrUnavailable):
		if s.dbDown.CompareAndSwap(false, true) {
			s.log.WarnContext(c.Request().Context(), "the database is unavailable", slog.Any("error", err))
		}
	default:
		if _, ok := errors.AsType[*panicked](err); !ok && problemOf(err) == problemInternal {
			s.log.ErrorContext(c.Request().Context(), "a query failed", slog.Any("error", err), slog.String("path", c.Request().URL.Path),
				slog.String("request_id", requestID(c)))
		}
	}
}
