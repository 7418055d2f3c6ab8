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

// headers sets what every answer has. Header.Set would make a slice of each
// value, for each answer; and echo calls this, too, for each.
func (s *Server) headers(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		maps.Copy(c.Response().Header(), s.common)
		return next(c)
	}
}

// logRequests costs nothing unless requests are logged.
func (s *Server) logRequests(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if !s.log.Enabled(c.Request().Context(), slog.LevelDebug) {
			return next(c)
		}
		start := time.Now()
		err := next(c)
		if err != nil {
			c.Error(err) // now, so that the status below is the one sent
		}
		ctx := contextOf(c)
		attrs := []slog.Attr{slog.String("method", c.Request().Method), slog.String("path", c.Request().URL.Path)}
		if c.Response().Committed { // else nothing was answered, and echo says 200
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

// panicked is a panic as an error. Its text is for the log alone.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v", p.value) }

func newPanicked(value any) *panicked {
	p := &panicked{value: value, stack: debug.Stack()}
	// A tier re-panics in its callers; the stack that matters is the one of
	// the function.
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
			if value == http.ErrAbortHandler { //nolint:errorlint // net/http compares it the same way
				panic(value)
			}
			p := newPanicked(value)
			s.logPanic(contextOf(c), p, slog.String("method", c.Request().Method), slog.String("path", c.Request().URL.Path))
			err = logged{p}
		}()
		return next(c)
	}
}

// logPanic logs a panic, and what it happened to.
func (s *Server) logPanic(ctx context.Context, p *panicked, attrs ...slog.Attr) {
	s.log.LogAttrs(ctx, slog.LevelError, "a request panicked",
		append(attrs, slog.Any("panic", p.value), slog.String("stack", string(p.stack)))...)
}

// authorized wants the admin token, if there is one. Hashes are compared, so
// that the time taken does not even tell the token's length.
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

// sameOrigin refuses a browser that was sent here by another site's page.
func (s *Server) sameOrigin(next echo.HandlerFunc) echo.HandlerFunc {
	protection := http.NewCrossOriginProtection()
	return func(c echo.Context) error {
		if err := protection.Check(c.Request()); err != nil {
			return problemCrossOrigin
		}
		return next(c)
	}
}

// limitBody refuses a body that no endpoint could have a use for.
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
