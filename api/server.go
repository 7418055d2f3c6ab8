// Package api is fleetcall's HTTP interface: two endpoints for products, health checks,
// statistics, and pages for browsers. docs/openapi.json describes it, and the tests
// check every response against that document. A proxy, which has no products, serves the
// rest of it at an address of its own.
//
// The package knows the tiers as a coalesce.Group and the database as a Store. Package
// main chooses both.
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
	"golang.org/x/time/rate"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
	"github.com/fleetcall/fleetcall/internal/broadcast"
	"github.com/fleetcall/fleetcall/internal/hot"
	"github.com/fleetcall/fleetcall/internal/httpheader"
	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/ratelimit"
)

const (
	readHeaderTimeout = 10 * time.Second
	readTimeout       = 30 * time.Second // the largest body that an endpoint reads is small
	idleTimeout       = 2 * time.Minute  // longer than a balancer keeps an idle connection
	maxHeaderBytes    = 64 << 10
	bodyLimit         = 64 << 10
)

// Store reads products from a database.
type Store interface {
	// Product runs one query. It returns product.ErrNotFound, product.ErrBusy,
	// product.ErrUnavailable, ctx.Err(), or another error, of which the client learns
	// only that it happened. Product calls product.QuerySent once for each query that
	// it sends, before the result arrives.
	Product(ctx context.Context, id int32) (product.Product, error)
	// Products is Product for many ids, with one query. It returns those that there are,
	// in any order; an id without a product is no error.
	Products(ctx context.Context, ids []int32) ([]product.Product, error)
	// Ping checks the connection to the database. A Server never runs two pings at a
	// time.
	Ping(ctx context.Context) error
	Stats() product.Stats
	ResetStats()
}

// Fleet sends questions to all live replicas.
//
// Ask asks all replicas at the same time and returns their answers, with this replica's
// first. An answer is what the replica's Server.Answer returned; a replica that
// returned nothing is left out. Ask waits until as many answers as expected have come,
// counting this replica's, or with zero until all replicas have answered. It stops
// waiting when ctx ends, or after a short time if ctx has no deadline. missing is the
// number of answers that did not come. err says why no other replica could be asked;
// answers then has only this replica's.
type Fleet interface {
	Ask(ctx context.Context, question string, expected int) (answers [][]byte, missing int, err error)
}

// Share begins to share messages with all replicas that give the same topic: at each
// interval one of them calls produce, and next returns what that returned, at all of them.
// It returns produce's error, or the context's. next is not called concurrently; its
// context ends when no message is wanted any more, and the next one has another.
type Share func(topic string, interval time.Duration, produce func(context.Context) ([]byte, error)) (next func(context.Context) ([]byte, error))

// RedisStatus is the state of the connection to Redis in the body of /health.
type RedisStatus string

const (
	RedisConnected RedisStatus = "connected"
	RedisDegraded  RedisStatus = "degraded" // a server is down
	RedisDisabled  RedisStatus = "disabled" // not configured
)

// Config configures a Server. Mode and Replica are required, and either Group and Store
// or Upstream.
type Config struct {
	Group coalesce.Group[product.Product]
	Store Store
	// Upstream counts what a proxy does. Its Server has the endpoints of operation alone:
	// no products and no bursts.
	Upstream *Upstream

	Mode    string // off, shadow, local or distributed
	Replica string // the id of this replica

	Tiers      func() Tiers                      // nil: no tier is on
	Shadow     func() ShadowStats                // nil: the mode is not shadow
	ResetTiers func()                            // nil: nothing to reset
	Redis      func(context.Context) RedisStatus // nil: RedisDisabled
	Readiness  func() Readiness                  // nil: Ready
	Fleet      Fleet                             // nil: this replica answers alone
	Metrics    http.Handler                      // serves /metrics; nil: 404

	// Requested, if not nil, is called after each request, even one whose client left
	// early.
	Requested func(Request)
	// Around, if not nil, wraps the handler of all requests, for example to trace them.
	Around func(http.Handler) http.Handler
	Leases func() Leases // nil: there is no distributed tier

	// Share shares the snapshots of /events. If it is nil, each replica makes its own.
	Share Share
	// AdminToken is the bearer token that POST endpoints require, and with which replicas
	// sign what they order each other to do. If it is empty, they require none, and do not
	// sign.
	AdminToken string
	// WriteTimeout bounds the time from the end of a request's header to the end of the
	// response. It must be longer than the longest query and its wait for a connection.
	// Zero means no limit.
	WriteTimeout time.Duration
	// Logger writes the log. Its handler should be a RequestLog, because otherwise log
	// lines lack the id of their request. If Logger is nil, nothing is logged.
	Logger *slog.Logger
}

// Server serves the API. Create it with New.
type Server struct {
	config        Config
	log           *slog.Logger
	echo          *echo.Echo
	http          *http.Server
	counts        counts
	batches       batchCounts
	commonHeaders http.Header // on every response
	products      encoder
	started       time.Time
	draining      atomic.Bool
	dbDown        atomic.Bool     // what the log said last
	failureLimits ratelimit.Keyed // of log lines about responses with status 5xx, by problem type
	pings         local.Group[struct{}, struct{}]

	instance  string               // changes with each start of the replica
	latency   latencies            // of both product endpoints
	hot       *hot.Keys[int32]     // by product
	snapshots *broadcast.Broadcast // of the fleet, for the watchers of /events
	// nextSnapshot returns the next one of the fleet as JSON: this replica's, or another's.
	nextSnapshot func(context.Context) ([]byte, error)
	bursting     atomic.Bool    // this replica runs a client's burst
	sharing      atomic.Bool    // this replica runs its share of a burst
	orders       orders         // of this replica and to it
	refusals     rate.Sometimes // log lines about orders that are refused
}

// New returns a Server that does not serve yet. It returns an error if a required field
// of config is missing.
func New(config Config) (*Server, error) {
	switch {
	case config.Upstream == nil && (config.Group == nil || config.Store == nil):
		return nil, errors.New("fleetcall: New: Group and Store are required, or Upstream")
	case config.Upstream != nil && (config.Group != nil || config.Store != nil):
		return nil, errors.New("fleetcall: New: a Server has either Group and Store or Upstream")
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
	if config.Readiness == nil {
		config.Readiness = func() Readiness { return Ready }
	}
	if config.Around == nil {
		config.Around = func(api http.Handler) http.Handler { return api }
	}
	s := &Server{config: config, log: config.Logger, echo: echo.New(), started: time.Now(),
		commonHeaders: httpheader.Common(), instance: rand.Text(), hot: hot.New[int32](hotWindow),
		orders: orders{token: config.AdminToken}, refusals: rate.Sometimes{First: 1, Interval: time.Second}}
	s.commonHeaders.Set("X-Replica", config.Replica)
	s.nextSnapshot = s.snapshot
	if config.Share != nil {
		s.nextSnapshot = config.Share("snapshots", snapshotEvery, s.snapshot)
	}
	s.snapshots = broadcast.New(broadcast.Config{Message: s.event, Interval: snapshotEvery, MaxWatchers: maxWatchers})
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
	e.HTTPErrorHandler = s.handleError
	if s.config.Requested != nil {
		e.Use(s.observeRequests)
	}
	e.Use(s.recoverPanics, s.headers, withRequestID, s.logRequests, limitBody)

	get := func(path string, handler echo.HandlerFunc) {
		e.GET(path, handler)
		e.HEAD(path, handler)
	}
	get("/", s.index)
	get("/livez", s.livez)
	get("/readyz", s.readyz)
	get("/health", s.health)
	get("/stats", s.stats)
	get("/metrics", s.metrics)
	get("/events", s.events)
	get("/assets/:name", s.asset)
	get("/docs", s.docs)
	get("/openapi.json", s.openAPI)
	e.POST("/stats/reset", s.reset, s.sameOrigin, s.authorized)
	if s.config.Upstream != nil {
		return
	}
	get("/product/normal/:id", s.normal)
	get("/product/coalesced/:id", s.coalesced)
	get("/products", s.many)
	e.POST("/burst", s.burst, s.sameOrigin, s.authorized)
}

// Handler returns the API as an http.Handler, without the server's timeouts and without
// Config.Around.
func (s *Server) Handler() http.Handler { return s.echo }

// Serve accepts connections from l until Shutdown is called, and then returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("fleetcall: serving HTTP: %w", err)
	}
	return nil
}

// Drain makes /readyz say no and ends all streams of /events. Other requests are still
// answered, so that a balancer has time to send them to other replicas before Shutdown.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.snapshots.Close()
}

// Shutdown calls Drain, stops listening, and waits for the requests that are being
// answered. If ctx ends first, Shutdown closes their connections and returns an error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	if err := s.http.Shutdown(ctx); err != nil {
		return fmt.Errorf("fleetcall: waiting for the last requests: %w", errors.Join(err, s.http.Close()))
	}
	return nil
}
