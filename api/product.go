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

// ProductResponse is the body that both product endpoints return.
type ProductResponse struct {
	QueryTimeMS  float64         `json:"query_time_ms"` // how long this request waited for its result
	Timestamp    float64         `json:"timestamp"`     // of the response, in Unix seconds
	Product      product.Product `json:"product"`
	EndpointType string          `json:"endpoint_type"` // normal or coalesced
}

// normal runs one query for each request.
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
	s.logDatabaseState(ctx, err, slog.Int("product", int(id)))
	if err != nil {
		return loggedError{err}
	}
	return s.writeProduct(c, p, start, "normal")
}

// coalesced lets the requests for a product share a query.
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
		return loggedError{err}
	}
	return s.writeProduct(c, p, start, "coalesced")
}

// call is one coalesced call. It also serves as the context of the flight that the call
// may start, which saves an allocation for each call.
type call struct {
	requestContext
	// The two flags are set on the goroutine that runs the query, which may outlive the
	// call.
	ranQuery    atomic.Bool // the query ran on behalf of this call
	panicLogged atomic.Bool // the query panicked, and the panic is in the log
}

// call runs one coalesced call and counts it. The counts are complete when call
// returns.
func (s *Server) call(ctx requestContext, id int32) (p product.Product, role coalesce.Role, err error) {
	s.counts.total.Add(1)
	s.counts.active.Add(1)
	defer s.counts.active.Add(-1)
	c := &call{requestContext: ctx}
	p, role, err = s.do(c, id)
	switch {
	case err == nil, errors.Is(err, product.ErrNotFound):
		if !c.ranQuery.Load() {
			s.counts.hits.Add(1)
		}
	case ctx.Err() == nil: // a client that has left sees no error
		s.counts.errors.Add(1)
	}
	return p, role, err
}

func (s *Server) do(c *call, id int32) (p product.Product, role coalesce.Role, err error) {
	defer func() {
		if value := recover(); value != nil {
			panicked := newPanicError(value)
			if c.ranQuery.Load() && !c.panicLogged.Load() { // the panic came from the tier and not from the query
				s.logPanic(c, panicked, slog.Int("product", int(id)))
			}
			err = panicked
		}
	}()
	return s.config.Group.Do(c, keyOf(id), func(ctx context.Context) (product.Product, error) { return s.query(ctx, c, id) })
}

// query runs the query of a flight and logs its failure. It is the right place to log,
// because it runs once for all callers of the flight, and also after callers have left.
func (s *Server) query(ctx context.Context, c *call, id int32) (product.Product, error) {
	c.ranQuery.Store(true)
	defer func() {
		if value := recover(); value != nil {
			c.panicLogged.Store(true)
			s.logPanic(ctx, newPanicError(value), slog.Int("product", int(id)))
			panic(value)
		}
	}()
	p, err := s.config.Store.Product(product.OnQuery(ctx, func() {
		s.counts.misses.Add(1)
		product.QuerySent(ctx) // counts the query for a burst, if this request is part of one
	}), id)
	s.logDatabaseState(ctx, err, slog.Int("product", int(id)))
	return p, err
}

// roleHeaders are the values of X-Coalesce-Role. All responses share them.
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

func (s *Server) writeProduct(c echo.Context, p product.Product, start time.Time, endpoint string) error {
	now := time.Now()
	body, err := s.products.encode(ProductResponse{
		QueryTimeMS:  queryTime(now.Sub(start)),
		Timestamp:    timestamp(now),
		Product:      p,
		EndpointType: endpoint,
	})
	if err != nil {
		return err
	}
	return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, body)
}

// queryTime returns milliseconds with two decimals.
func queryTime(took time.Duration) float64 {
	return math.Round(float64(took)/float64(time.Millisecond)*100) / 100
}

// timestamp returns Unix seconds with three decimals.
func timestamp(now time.Time) float64 { return float64(now.UnixMilli()) / 1000 }

// parseID accepts a positive 32-bit number in decimal digits without a sign, a leading
// zero or anything else, so that each product has one path.
func parseID(text string) (int32, error) {
	id, err := strconv.ParseUint(text, 10, 31)
	if err != nil || id == 0 || text[0] == '0' {
		return 0, problemBadID
	}
	return int32(id), nil
}

// logDatabaseState logs when the database becomes unavailable, when it is back, and
// each error of a query that is an internal one. It logs nothing if ctx, under which
// the query ran, has ended: then the error is the caller's doing.
func (s *Server) logDatabaseState(ctx context.Context, err error, query slog.Attr) {
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
		s.log.ErrorContext(ctx, "a query failed", slog.Any("error", err), query)
	}
}
