package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/product"
)

// Problem is an error answer, as RFC 9457 has it.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`

	retryAfter int // seconds; zero: no Retry-After
}

// Error returns the title.
func (p *Problem) Error() string { return p.Title }

const problemType = "urn:fleetcall:problem:"

var (
	problemUnknownProduct = &Problem{Type: problemType + "unknown-product", Title: "Unknown product",
		Status: http.StatusNotFound, Detail: "There is no product with this id."}
	problemBadID = &Problem{Type: problemType + "bad-id", Title: "Bad product id",
		Status: http.StatusUnprocessableEntity, Detail: "A product id is a whole number from 1 to 2147483647, in decimal digits."}
	problemBadScope = &Problem{Type: problemType + "bad-scope", Title: "Bad scope",
		Status: http.StatusUnprocessableEntity, Detail: "The scope is replica or fleet."}
	problemUnauthorized = &Problem{Type: problemType + "unauthorized", Title: "Token required",
		Status: http.StatusUnauthorized, Detail: "Send the admin token as a bearer token in the Authorization header."}
	problemCrossOrigin = &Problem{Type: problemType + "cross-origin", Title: "Cross-origin request",
		Status: http.StatusForbidden, Detail: "A page of another site must not send this request."}
	problemDatabase = &Problem{Type: problemType + "database-unavailable", Title: "Database unavailable",
		Status: http.StatusServiceUnavailable, Detail: "The database cannot be reached. Try again later.", retryAfter: 5}
	problemBusy = &Problem{Type: problemType + "database-busy", Title: "Database busy",
		Status: http.StatusServiceUnavailable, Detail: "No database connection became free in time. Try again later.", retryAfter: 1}
	problemCoordination = &Problem{Type: problemType + "coordination-unavailable", Title: "Coordination unavailable",
		Status: http.StatusServiceUnavailable, Detail: "The replicas could not agree on who runs the query. Try again later.", retryAfter: 5}
	problemBadBurst = &Problem{Type: problemType + "bad-burst", Title: "Bad burst", Status: http.StatusUnprocessableEntity,
		Detail: `The body is a JSON object with product, a whole number from 1 to 2147483647, and requests, from 1 to 1000.`}
	problemBurstBusy = &Problem{Type: problemType + "burst-busy", Title: "Another burst is under way",
		Status: http.StatusConflict, Detail: "A replica takes part in one burst at a time. Try again when it has ended."}
	problemWatchers = &Problem{Type: problemType + "too-many-watchers", Title: "Too many watchers",
		Status: http.StatusServiceUnavailable, Detail: "As many watch this replica as may. Try again later.", retryAfter: 5}
	problemStopping = &Problem{Type: problemType + "stopping", Title: "Replica stopping",
		Status: http.StatusServiceUnavailable, Detail: "This replica is shutting down. Try again.", retryAfter: 1}
	problemTimeout = &Problem{Type: problemType + "query-timeout", Title: "Query timed out",
		Status: http.StatusGatewayTimeout, Detail: "The query did not finish within the time a request may take."}
	problemInternal = &Problem{Type: problemType + "internal", Title: "Internal error",
		Status: http.StatusInternalServerError, Detail: "Something went wrong here. The server's log says what."}
)

// problemOf chooses by errors.Is alone: the error may have come from another
// replica.
func problemOf(err error) *Problem {
	var p *Problem
	var routing *echo.HTTPError
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, product.ErrNotFound):
		return problemUnknownProduct
	case errors.Is(err, product.ErrBusy):
		return problemBusy
	case errors.Is(err, product.ErrUnavailable):
		return problemDatabase
	case errors.Is(err, coalesce.ErrUnavailable), errors.Is(err, coalesce.ErrPoisoned):
		return problemCoordination
	case errors.Is(err, coalesce.ErrClosed):
		return problemStopping
	case errors.Is(err, coalesce.ErrFlightTimeout), errors.Is(err, context.DeadlineExceeded):
		return problemTimeout
	case errors.As(err, &routing):
		return problemOfRouting(routing.Code)
	}
	return problemInternal
}

func problemOfRouting(status int) *Problem {
	detail := map[int]string{
		http.StatusNotFound:              "There is nothing at this address.",
		http.StatusMethodNotAllowed:      "This address does not take this method; the Allow header has those it takes.",
		http.StatusRequestEntityTooLarge: "The request's body is too large.",
	}[status]
	if detail == "" {
		detail = "The request cannot be answered."
	}
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

// logged is an error of a query, or a panic. An internal one is in the log of the
// replica where it happened.
type logged struct{ error }

func (l logged) Unwrap() error { return l.error }

// answerError is echo's error handler.
func (s *Server) answerError(err error, c echo.Context) {
	if c.Response().Committed || c.Request().Context().Err() != nil {
		return // too late, or nobody is there to read it
	}
	p := problemOf(err)
	if p.Status >= http.StatusInternalServerError {
		s.logFailure(c, p, err)
	}
	s.writeProblem(c, p)
}

// logFailure logs an answer that is the server's fault: each one whose cause no log
// would have otherwise, and of the others one of each type a second. With a
// database that is slow, there are as many as there are requests.
func (s *Server) logFailure(c echo.Context, p *Problem, err error) {
	level := slog.LevelWarn
	if _, known := errors.AsType[logged](err); p == problemInternal && !known {
		level = slog.LevelError
	} else if !s.failures.news(p.Type, time.Now()) {
		return
	}
	s.log.LogAttrs(contextOf(c), level, "answered with an error", slog.Int("status", p.Status),
		slog.String("type", strings.TrimPrefix(p.Type, problemType)), slog.Any("error", err),
		slog.String("method", c.Request().Method), slog.String("path", c.Request().URL.Path))
}

// onceASecond tells of each kind of thing the first one, and then no more than
// one a second. The zero value is ready to use.
type onceASecond struct {
	mu   sync.Mutex
	last map[string]time.Time // when there was news, by kind; guarded by mu
}

func (o *onceASecond) news(kind string, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.Sub(o.last[kind]) < time.Second {
		return false
	}
	if o.last == nil {
		o.last = map[string]time.Time{}
	}
	o.last[kind] = now
	return true
}

func (s *Server) writeProblem(c echo.Context, p *Problem) {
	body, err := json.Marshal(p)
	if err != nil {
		return // four plain fields always marshal
	}
	if p.retryAfter > 0 {
		c.Response().Header().Set(echo.HeaderRetryAfter, strconv.Itoa(p.retryAfter))
	}
	// A failed write means that the client is gone.
	_ = c.Blob(p.Status, "application/problem+json", append(body, '\n'))
}
