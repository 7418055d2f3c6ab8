package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/problem"
	"github.com/fleetcall/fleetcall/internal/product"
)

// Problem is the body of an error response as RFC 9457 defines it.
type Problem = problem.Problem

var (
	problemUnknownProduct = &Problem{Type: problem.Namespace + "unknown-product", Title: "Unknown product",
		Status: http.StatusNotFound, Detail: "There is no product with this id."}
	problemBadID = &Problem{Type: problem.Namespace + "bad-id", Title: "Bad product id",
		Status: http.StatusUnprocessableEntity, Detail: "A product id is a whole number from 1 to 2147483647, in decimal digits."}
	problemBadIDs = &Problem{Type: problem.Namespace + "bad-ids", Title: "Bad list of product ids",
		Status: http.StatusUnprocessableEntity, Detail: "Give the ids as ids=1,2,3, once: from 1 to 200 of them."}
	problemBadScope = &Problem{Type: problem.Namespace + "bad-scope", Title: "Bad scope",
		Status: http.StatusUnprocessableEntity, Detail: "The scope is replica or fleet."}
	problemUnauthorized = &Problem{Type: problem.Namespace + "unauthorized", Title: "Token required",
		Status: http.StatusUnauthorized, Detail: "Send the admin token as a bearer token in the Authorization header."}
	problemCrossOrigin = &Problem{Type: problem.Namespace + "cross-origin", Title: "Cross-origin request",
		Status: http.StatusForbidden, Detail: "A page of another site must not send this request."}
	problemDatabase = &Problem{Type: problem.Namespace + "database-unavailable", Title: "Database unavailable",
		Status: http.StatusServiceUnavailable, Detail: "The database cannot be reached. Try again later.", RetryAfter: 5}
	problemBusy = &Problem{Type: problem.Namespace + "database-busy", Title: "Database busy",
		Status: http.StatusServiceUnavailable, Detail: "No database connection became free in time. Try again later.", RetryAfter: 1}
	problemCoordination = &Problem{Type: problem.Namespace + "coordination-unavailable", Title: "Coordination unavailable",
		Status: http.StatusServiceUnavailable, Detail: "The replicas could not agree on who runs the query. Try again later.", RetryAfter: 5}
	problemBadBurst = &Problem{Type: problem.Namespace + "bad-burst", Title: "Bad burst", Status: http.StatusUnprocessableEntity,
		Detail: `The body is a JSON object with product, a whole number from 1 to 2147483647, and requests, from 1 to 1000.`}
	problemBurstBusy = &Problem{Type: problem.Namespace + "burst-busy", Title: "Another burst is under way",
		Status: http.StatusConflict, Detail: "A replica takes part in one burst at a time. Try again when it has ended."}
	problemWatchers = &Problem{Type: problem.Namespace + "too-many-watchers", Title: "Too many watchers",
		Status: http.StatusServiceUnavailable, Detail: "As many watch this replica as may. Try again later.", RetryAfter: 5}
	problemStopping = &Problem{Type: problem.Namespace + "stopping", Title: "Replica stopping",
		Status: http.StatusServiceUnavailable, Detail: "This replica is shutting down. Try again.", RetryAfter: 1}
	problemTimeout = &Problem{Type: problem.Namespace + "query-timeout", Title: "Query timed out",
		Status: http.StatusGatewayTimeout, Detail: "The query did not finish within the time a request may take."}
	problemInternal = &Problem{Type: problem.Namespace + "internal", Title: "Internal error",
		Status: http.StatusInternalServerError, Detail: "Something went wrong here. The server's log says what."}
)

// problemOf chooses the problem for an error. It compares with errors.Is, because an
// error that comes from another replica keeps its sentinels but not its type.
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

// loggedError marks an error of a query, or a panic. If it is an internal one, the
// replica on which it happened has already logged it.
type loggedError struct{ error }

func (l loggedError) Unwrap() error { return l.error }

// handleError writes the response to a request whose handler returned an error. It is
// echo's error handler.
func (s *Server) handleError(err error, c echo.Context) {
	if c.Response().Committed || c.Request().Context().Err() != nil {
		return // the response has begun, or the client has left
	}
	p := problemOf(err)
	if p.Status >= http.StatusInternalServerError {
		s.logFailure(c, p, err)
	}
	p.Write(c.Response())
}

// logFailure logs a response with a status of 500 or more. An internal error that was
// logged nowhere else is always logged. All others are logged once a second for each
// type, because a slow database fails as many requests as arrive.
func (s *Server) logFailure(c echo.Context, p *Problem, err error) {
	level := slog.LevelWarn
	if _, known := errors.AsType[loggedError](err); p == problemInternal && !known {
		level = slog.LevelError
	} else if !s.failureLimits.Allow(p.Type) {
		return
	}
	s.log.LogAttrs(contextOf(c), level, "answered with an error", slog.Int("status", p.Status),
		slog.String("type", p.Name()), slog.Any("error", err),
		slog.String("method", c.Request().Method), slog.String("path", c.Request().URL.Path))
}
