package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"fleetcall/coalesce"
)

const (
	contentSecurityPolicy = "Content-Security-Policy"
	// maxRequestID is how long a client's X-Request-Id may be to be kept.
	maxRequestID = 128
)

// commonHeaders is what every answer has. The values are shared by all answers:
// they may be replaced, not changed.
func commonHeaders(replica string) http.Header {
	h := http.Header{}
	h.Set("X-Replica", replica)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set(contentSecurityPolicy, "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	return h
}

// headers sets what every answer has. Header.Set would make a slice of each
// value, for each answer; and echo calls this, too, for each.
func (s *Server) headers(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		maps.Copy(c.Response().Header(), s.common)
		return next(c)
	}
}

// withRequestID gives every request and its answer an id: the client's
// X-Request-Id, or a new one where that is missing, too long, or has
// characters that could forge a log line. deploy/nginx.conf has the same rule.
func withRequestID() echo.MiddlewareFunc {
	give := middleware.RequestIDWithConfig(middleware.RequestIDConfig{Generator: newRequestID})
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		given := give(next)
		return func(c echo.Context) error {
			h := c.Request().Header
			id := h.Get(echo.HeaderXRequestID)
			if len(id) > maxRequestID || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
				h.Del(echo.HeaderXRequestID)
			}
			return given(c)
		}
	}
}

// newRequestID returns 128 random bits as nginx writes its own. They tell requests
// apart, and are no secret.
func newRequestID() string {
	var id [16]byte
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
	return hex.EncodeToString(id[:])
}

// requestID returns the id that withRequestID gave.
func requestID(c echo.Context) string { return c.Response().Header().Get(echo.HeaderXRequestID) }

// logRequests costs nothing unless requests are logged.
func (s *Server) logRequests(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx := c.Request().Context()
		if !s.log.Enabled(ctx, slog.LevelDebug) {
			return next(c)
		}
		start := time.Now()
		err := next(c)
		if err != nil {
			c.Error(err) // now, so that the status below is the one sent
		}
		attrs := []slog.Attr{
			slog.String("method", c.Request().Method),
			slog.String("path", c.Request().URL.Path),
			slog.Int("status", c.Response().Status),
			slog.Duration("took", time.Since(start)),
			slog.String("remote", c.Request().RemoteAddr),
			slog.String("request_id", requestID(c)),
		}
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

func (p *panicked) Error() string { return "panic" }

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
			s.logPanic(c, p)
			err = p
		}()
		return next(c)
	}
}

func (s *Server) logPanic(c echo.Context, p *panicked) {
	s.log.ErrorContext(c.Request().Context(), "a request panicked", "method", c.Request().Method, "path", c.Request().URL.Path,
		"request_id", requestID(c), "panic", p.value, "stack", string(p.stack))
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
