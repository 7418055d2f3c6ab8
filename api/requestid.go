package api

import (
	"context"
	"log/slog"

	"github.com/labstack/echo/v4"

	"github.com/fleetcall/fleetcall/internal/httpheader"
)

// withRequestID gives each response the id of its request.
func withRequestID(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Response().Header().Set(httpheader.RequestID, httpheader.RequestIDOf(c.Request().Header))
		return next(c)
	}
}

// requestContext is the context of a request, with the request's id as a value. A
// flight inherits the values of its first caller's context, so log lines about a flight
// carry that caller's id.
type requestContext struct {
	context.Context
	id string
}

type requestIDKey struct{}

// WithRequestID returns a context with the id of a request, for the log lines that are
// written with it.
func WithRequestID(ctx context.Context, id string) context.Context { return requestContext{ctx, id} }

// contextOf returns the context under which a request's query runs, and with which its
// log lines are written.
func contextOf(c echo.Context) requestContext {
	return requestContext{c.Request().Context(), c.Response().Header().Get(httpheader.RequestID)}
}

// Value makes requestContext a context.Context.
func (c requestContext) Value(key any) any {
	if key == (requestIDKey{}) {
		return c.id
	}
	return c.Context.Value(key)
}

// RequestLog is a slog.Handler that adds request_id to each record whose context is
// that of a request, or derived from one, as a flight's context is.
type RequestLog struct{ slog.Handler }

// Handle makes RequestLog a slog.Handler.
func (h RequestLog) Handle(ctx context.Context, record slog.Record) error {
	if id, ok := ctx.Value(requestIDKey{}).(string); ok {
		record.AddAttrs(slog.String("request_id", id))
	}
	return h.Handler.Handle(ctx, record)
}

// WithAttrs makes RequestLog a slog.Handler.
func (h RequestLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return RequestLog{h.Handler.WithAttrs(attrs)}
}

// WithGroup makes RequestLog a slog.Handler.
func (h RequestLog) WithGroup(name string) slog.Handler { return RequestLog{h.Handler.WithGroup(name)} }
