// Package api is fleetcall's HTTP interface: the two product endpoints, health,
// statistics, and pages for browsers. docs/openapi.json describes it, and the
// tests hold every answer against it.
//
// It knows the tiers as a coalesce.Group and the database as a Store; what they
// are made of is the program's business.
package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
	"github.com/fleetcall/fleetcall/internal/answer"
	"github.com/fleetcall/fleetcall/internal/broadcast"
	"github.com/fleetcall/fleetcall/internal/hot"
	"github.com/fleetcall/fleetcall/internal/product"
)

const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second // no endpoint reads a body worth more
	idleTimeout       = 2 * time.Minute  // longer than a balancer keeps a connection idle
	maxHeaderBytes    = 64 << 10
	bodyLimit         = 64 << 10
)

// Store is where the products are.
type Store interface {
	// Product runs one query. Its errors are product.ErrNotFound,
	// product.ErrBusy, product.ErrUnavailable, ctx.Err(), and others that
	// the client is told nothing of. It calls product.QuerySent once for
	// each query it sends, before the answer.
	Product(ctx context.Context, id int32) (product.Product, error)
	// Ping asks the database for a sign of life. A Server waits for one before
	// it calls the next.
	Ping(ctx context.Context) error
	Stats() product.Stats
	ResetStats()
}

// Fleet asks every live replica a question, all at once, and returns the
// answers, this replica's first; each is what a Server's Answer returned, unless
// that was nothing. It waits for as many answers as are expected, with this
// replica's, and for zero as many as there are replicas; until ctx ends, and
// briefly where ctx has no deadline. missing is how many did not answer. A non-nil
// err says why no other replica could be asked.
type Fleet interface {
	Ask(ctx context.Context, question string, expected int) (answers [][]byte, missing int, err error)
}

// RedisStatus is how Redis does, as /health says it.
type RedisStatus string

const (
	RedisConnected RedisStatus = "connected"
	RedisDegraded  RedisStatus = "degraded" // configured, and cannot be used
	RedisDisabled  RedisStatus = "disabled" // not configured
)

// Config is what a Server needs. Group, Store, Mode and Replica are required.
type Config struct {
	Group   coalesce.Group[product.Product]
	Store   Store
	Mode    string // off, local or distributed
	Replica string // the replica's id

	Tiers      func() Tiers                      // nil: no tier
	ResetTiers func()                            // nil: nothing to reset
	Redis      func(context.Context) RedisStatus // nil: RedisDisabled
	Fleet      Fleet                             // nil: this replica answers for itself
	Metrics    http.Handler                      // of /metrics; nil: 404

	// Requested is told of each request that was answered, or whose client
	// left. nil: nobody is.
	Requested func(Request)
	// Around returns the handler that serves all, made from the API's own: for
	// traces. nil: the API's own.
	Around func(http.Handler) http.Handler
	Leases func() Leases // nil: there is no distributed tier

	// AdminToken is the bearer token that POST endpoints want; empty: none.
	AdminToken string
	// WriteTimeout bounds a request from its header to the end of the
	// answer. It must exceed the longest query and its wait for a
	// connection. Zero: no limit.
	WriteTimeout time.Duration
	// Logger has a RequestLog for its handler, or its lines lack the request's
	// id. nil: nothing is logged.
	Logger *slog.Logger
}

// Server serves the API.
type Server struct {
	config   Config
	log      *slog.Logger
	echo     *echo.Echo
	http     *http.Server
	counts   counts
	common   http.Header // of every answer
	encoded  encoder
	started  time.Time
	draining atomic.Bool
	dbDown   atomic.Bool // as last logged
	failures onceASecond // answers 5xx that were logged, by their type
	pings    local.Group[struct{}, struct{}]

	instance string               // names this start of the replica
	latency  latencies            // of the product endpoints
	hot      *hot.Keys[int32]     // products
	watched  *broadcast.Broadcast // of the fleet's snapshots
	bursting atomic.Bool          // this replica leads a burst
	sharing  atomic.Bool          // it runs its share of one
}

// New returns a Server that does not listen yet. It returns an error when a
// required part of config is missing.
func New(config Config) (*Server, error) {
	switch {
	case config.Group == nil, config.Store == nil:
		return nil, errors.New("fleetcall: New: Group and Store are required")
	case config.Mode == "", config.Replica == "":
		return nil, errors.New("fleetcall: New: Mode and Replica are required")
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Tiers == nil {
		config.Tiers = func() Tiers { return Tiers{} }
	}
	if config.ResetTiers == nil {
		config.ResetTiers = func() {}
	}
	if config.Redis == nil {
		config.Redis = func(context.Context) RedisStatus { return RedisDisabled }
	}
	if config.Around == nil {
		config.Around = func(api http.Handler) http.Handler { return api }
	}
	s := &Server{config: config, log: config.Logger, echo: echo.New(), started: time.Now(),
		common: answer.Headers(), instance: rand.Text(), hot: hot.New[int32](hotWindow)}
	s.common.Set("X-Replica", config.Replica)
	s.watched = broadcast.New(broadcast.Config{Make: s.event, Every: snapshotEvery, Most: maxWatchers})
	s.routes()
	s.http = &http.Server{
		Handler:           s.config.Around(s.echo),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      config.WriteTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

func (s *Server) routes() {
	e := s.echo
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = s.answerError
	if s.config.Requested != nil {
		e.Use(s.observeRequests)
	}
	e.Use(s.recoverPanics, s.headers, withRequestID, s.logRequests, limitBody)

	get := func(path string, handler echo.HandlerFunc) {
		e.GET(path, handler)
		e.HEAD(path, handler)
	}
	get("/", s.index)
	get("/livez", s.live)
	get("/readyz", s.ready)
	get("/health", s.health)
	get("/product/normal/:id", s.normal)
	get("/product/coalesced/:id", s.coalesced)
	get("/stats", s.stats)
	get("/metrics", s.metrics)
	get("/events", s.events)
	get("/assets/:name", s.asset)
	get("/docs", s.docs)
	get("/openapi.json", s.openAPI)
	e.POST("/stats/reset", s.reset, s.sameOrigin, s.authorized)
	e.POST("/burst", s.burst, s.sameOrigin, s.authorized)
}

// Handler returns the API as an http.Handler, without the server's timeouts and
// what Config.Around puts around it.
func (s *Server) Handler() http.Handler { return s.echo }

// Serve answers requests on l until Shutdown, and then returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("fleetcall: serving HTTP: %w", err)
	}
	return nil
}

// Drain makes /readyz say no, ends every stream of /events, and goes on
// answering requests, so that whoever sends them can turn to other replicas
// before Shutdown.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.watched.Close()
}

// Shutdown makes /readyz say no, stops listening, and waits for the requests
// under way. Those that still run when ctx ends are cut off, and the error says
// so.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	if err := s.http.Shutdown(ctx); err != nil {
		return fmt.Errorf("fleetcall: waiting for the last requests: %w", errors.Join(err, s.http.Close()))
	}
	return nil
}
