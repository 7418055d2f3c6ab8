package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/fleetcall/fleetcall/coalesce"
)

const contentSecurityPolicy = "Content-Security-Policy"

// headers sets the headers that every response has. It copies prepared slices:
// Header.Set would allocate a slice for each value of each response.
func (s *Server) headers(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		maps.Copy(c.Response().Header(), s.commonHeaders)
		return next(c)
	}
}

// logRequests logs each request at the debug level. At other levels it does no work.
func (s *Server) logRequests(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if !s.log.Enabled(c.Request().Context(), slog.LevelDebug) {
			return next(c)
		}
		start := time.Now()
		err := next(c)
		if err != nil {
			c.Error(err) // write the error response now, so that the status logged below is the one sent
		}
		ctx := contextOf(c)
		attrs := []slog.Attr{slog.String("method", c.Request().Method), slog.String("path", c.Request().URL.Path)}
		if c.Response().Committed { // if nothing was sent, echo reports 200 all the same
			attrs = append(attrs, slog.Int("status", c.Response().Status))
		}
		attrs = append(attrs, slog.Duration("took", time.Since(start)), slog.String("remote", c.Request().RemoteAddr))
		if role := c.Response().Header().Get("X-Coalesce-Role"); role != "" {
			attrs = append(attrs, slog.String("role", role))
		}
		if ctx.Err() != nil {
			attrs = append(attrs, slog.Bool("client_gone", true))
		}
		s.log.LogAttrs(ctx, slog.LevelDebug, "request", attrs...)
		return nil
	}
}

// panicError is a recovered panic as an error. Its text is for the log and is never
// sent to a client.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

func newPanicError(value any) *panicError {
	p := &panicError{value: value, stack: debug.Stack()}
	// A tier panics again in each of its callers. The useful stack is that of the
	// function that panicked first.
	if err, ok := value.(error); ok {
		var original *coalesce.PanicError
		if errors.As(err, &original) {
			p.value, p.stack = original.Value, original.Stack
		}
	}
	return p
}

func (s *Server) recoverPanics(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			value := recover()
			if value == nil {
				return
			}
			if value == http.ErrAbortHandler { //nolint:errorlint // net/http compares it with == too
				panic(value)
			}
			p := newPanicError(value)
			s.logPanic(contextOf(c), p, slog.String("method", c.Request().Method), slog.String("path", c.Request().URL.Path))
			err = loggedError{p}
		}()
		return next(c)
	}
}

// logPanic logs a panic with its stack, and with attrs that say which request it ended.
func (s *Server) logPanic(ctx context.Context, p *panicError, attrs ...slog.Attr) {
	s.log.LogAttrs(ctx, slog.LevelError, "a request panicked",
		append(attrs, slog.Any("panic", p.value), slog.String("stack", string(p.stack)))...)
}

// authorized requires the admin token if one is configured. It compares hashes of equal
// length, so that the time of the comparison reveals nothing about the token, not even
// its length.
func (s *Server) authorized(next echo.HandlerFunc) echo.HandlerFunc {
	if s.config.AdminToken == "" {
		return next
	}
	want := sha256.Sum256([]byte(s.config.AdminToken))
	return func(c echo.Context) error {
		scheme, token, _ := strings.Cut(c.Request().Header.Get(echo.HeaderAuthorization), " ")
		got := sha256.Sum256([]byte(strings.TrimSpace(token)))
		if strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			return next(c)
		}
		challenge := `Bearer realm="fleetcall"`
		if token != "" {
			challenge += `, error="invalid_token"`
		}
		c.Response().Header().Set(echo.HeaderWWWAuthenticate, challenge)
		return problemUnauthorized
	}
}

// sameOrigin refuses requests that a page of another site makes a browser send.
func (s *Server) sameOrigin(next echo.HandlerFunc) echo.HandlerFunc {
	protection := http.NewCrossOriginProtection()
	return func(c echo.Context) error {
		if err := protection.Check(c.Request()); err != nil {
			return problemCrossOrigin
		}
		return next(c)
	}
}

// limitBody refuses bodies that are larger than any endpoint needs.
func limitBody(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if r.ContentLength > bodyLimit {
			return echo.ErrStatusRequestEntityTooLarge
		}
		if r.Body != http.NoBody {
			r.Body = http.MaxBytesReader(c.Response(), r.Body, bodyLimit)
		}
		return next(c)
	}
}
