// Package httpproxy is a reverse proxy that merges requests for the same thing. Which
// requests those are, and which answers may be shared, is coalescehttp's to say; this
// package has the rules for paths, the connections to the upstream, the fields that a proxy
// adds, and its own answers when the upstream has none.
package httpproxy

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/internal/httpheader"
	"github.com/fleetcall/fleetcall/internal/ratelimit"
)

// Config configures a Proxy. Upstream, Group, UpstreamTimeout, FlightTimeout and Logger are
// required.
type Config struct {
	Upstream *url.URL // its path, if it has one, is put before that of each request
	// Host is sent to the upstream in place of the host that the client asked for; empty:
	// the client's.
	Host  string
	Rules []Rule // the first that matches holds
	// Group returns the tier for requests that may take so long when they are shared.
	Group           func(flightTimeout time.Duration) (coalescehttp.Group, error)
	UpstreamTimeout time.Duration  // until the header of an answer is there, unless the rule says otherwise
	FlightTimeout   time.Duration  // unless the rule says otherwise
	Trusted         []netip.Prefix // of the proxies whose X-Forwarded fields are passed on
	Replica         string         // for X-Replica
	Counts          Counts
	Logger          *slog.Logger

	// Context, if not nil, returns the context under which a request with this id is logged.
	Context func(ctx context.Context, id string) context.Context
	// Around, if not nil, wraps the connections to the upstream, for example to trace them.
	Around func(http.RoundTripper) http.RoundTripper
}

// Counts is told what happens. Its methods may be called concurrently.
type Counts interface {
	// Begin is called when a request came, and the function that it returns when it ended.
	Begin(*http.Request) (end func(Exchange))
	// Asking is called when a request is sent to the upstream, and the function that it
	// returns when the header of the answer is there, or with the kind of the failure.
	Asking() (answered func(failure string))
	// Cut is called with the kind of the failure when an answer broke off.
	Cut(failure string)
}

// Proxy is an http.Handler.
type Proxy struct {
	config   Config
	routes   []route
	fallback route // for paths without a rule
	upstream *upstream
	reverse  *httputil.ReverseProxy
	failures ratelimit.Keyed // of log lines, by the type of the problem
}

// route is a rule in use.
type route struct {
	name      string
	pattern   pattern
	timeout   time.Duration // of the upstream
	transport http.RoundTripper
}

// flushAfter is how long what the upstream has sent waits for more to be sent with. An
// answer of unknown length is sent on as it comes.
const flushAfter = 10 * time.Millisecond

// DefaultRule is the name of what holds for paths without a rule.
const DefaultRule = "default"

// New returns a Proxy. Close it when no request is under way.
func New(config Config) (*Proxy, error) {
	p := &Proxy{config: config, upstream: newUpstream(config)}
	for _, rule := range config.Rules {
		r, err := p.route(rule)
		if err != nil {
			return nil, err
		}
		p.routes = append(p.routes, r)
	}
	var err error
	if p.fallback, err = p.route(Rule{}); err != nil {
		return nil, err
	}
	p.reverse = &httputil.ReverseProxy{
		Rewrite:    p.rewrite,
		Transport:  byRoute{p},
		BufferPool: buffers{},
		// A small answer is sent at once and whole. The header of one whose body is slow
		// need not wait for it.
		FlushInterval: flushAfter,
		ErrorHandler:  p.refuse,
		ErrorLog:      log.New(io.Discard, "", 0), // a body that broke off, which the exchange tells
	}
	return p, nil
}

func (p *Proxy) route(rule Rule) (route, error) {
	r := route{name: rule.Path, timeout: p.config.UpstreamTimeout}
	if rule.Path == "" {
		r.name = DefaultRule
	} else {
		r.pattern = newPattern(rule.Path)
	}
	if rule.UpstreamTimeout > 0 {
		r.timeout = rule.UpstreamTimeout
	}
	flight := p.config.FlightTimeout
	if rule.FlightTimeout > 0 {
		flight = rule.FlightTimeout
	}
	group, err := p.config.Group(flight)
	if err != nil {
		return r, fmt.Errorf("fleetcall: preparing the rule for %s: %w", r.name, err)
	}
	opts := append(rule.options(), coalescehttp.WithObserver(decided))
	r.transport = coalescehttp.NewTransport(p.upstream, group, opts...)
	return r, nil
}

// ServeHTTP answers a request by the upstream's answer, its own or one that it shares.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := &exchange{route: p.routeOf(r.URL), id: httpheader.RequestIDOf(r.Header), begun: time.Now(), client: r}
	end := p.config.Counts.Begin(r)
	ctx := context.WithValue(r.Context(), exchangeKey{}, e)
	if p.config.Context != nil {
		ctx = p.config.Context(ctx, e.id)
	}
	whole := false
	defer func() {
		ended := e.end(ctx, whole)
		p.log(ctx, e, ended)
		end(ended)
	}()
	if r.ContentLength != 0 {
		// The upstream may answer while it reads. HTTP/2 needs no leave for that.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	if r.Method == http.MethodConnect {
		p.writeProblem(w, e, problemConnect)
	} else {
		p.reverse.ServeHTTP(w, r.WithContext(ctx))
	}
	whole = true
}

func (p *Proxy) routeOf(u *url.URL) *route {
	if len(p.routes) > 0 {
		segments := segmentsOf(u)
		for i := range p.routes {
			if p.routes[i].pattern.matches(segments) {
				return &p.routes[i]
			}
		}
	}
	return &p.fallback
}

// byRoute sends a request by its route's transport, and adds to the answer what each client
// gets for itself.
type byRoute struct{ proxy *Proxy }

// RoundTrip makes byRoute an http.RoundTripper.
func (b byRoute) RoundTrip(r *http.Request) (*http.Response, error) {
	e := exchangeOf(r.Context())
	resp, err := e.route.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	e.answered(resp.StatusCode)
	b.proxy.addFields(resp, e)
	return resp, nil
}

// Close closes idle connections to the upstream.
func (p *Proxy) Close() { p.upstream.close() }

// Ping checks whether the upstream takes connections.
func (p *Proxy) Ping(ctx context.Context) error { return p.upstream.ping(ctx) }

// buffers are httputil's for copying bodies.
type buffers struct{}

const bufferSize = 32 << 10

var bufferPool = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Get makes buffers an httputil.BufferPool.
func (buffers) Get() []byte { return bufferPool.Get().(*[bufferSize]byte)[:] }

// Put makes buffers an httputil.BufferPool.
func (buffers) Put(b []byte) { bufferPool.Put((*[bufferSize]byte)(b)) }
