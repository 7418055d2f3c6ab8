package api

import (
	"context"
	"log/slog"

	"github.com/labstack/echo/v4"

	"github.com/fleetcall/fleetcall/internal/answer"
)

// withRequestID gives every request's answer its id.
func withRequestID(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Response().Header().Set(answer.RequestID, answer.IDOf(c.Request().Header))
		return next(c)
	}
}

// requestContext is a request's context that says the request's id. A flight
// has the values of its first caller's, so that what is logged about it does.
type requestContext struct {
	context.Context
	id string
}

type requestIDKey struct{}

// contextOf returns the context to log with on behalf of a request, and to
// run its query under.
func contextOf(c echo.Context) requestContext {
	return requestContext{c.Request().Context(), c.Response().Header().Get(answer.RequestID)}
}

// Value makes requestContext a context.Context.
func (c requestContext) Value(key any) any {
	if key == (requestIDKey{}) {
		return c.id
	}
	return c.Context.Value(key)
}

// RequestLog is a handler that adds request_id to what is logged on behalf of a
// request: with its context, or one that was made of it, such as a flight's.
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
