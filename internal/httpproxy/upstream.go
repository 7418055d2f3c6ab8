package httpproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	// keptIdle is how many connections to the upstream are kept for the next requests.
	keptIdle = 1024
	// idleTimeout is shorter than the 5 s for which uvicorn and Node.js keep a connection:
	// one that they close just as a POST is sent on it is a failure, because it must not be
	// sent again.
	idleTimeout     = 4 * time.Second
	keepAlivePeriod = 30 * time.Second
	// continueTimeout is how long a client's body waits for the upstream to ask for it, when
	// the client wants to be asked.
	continueTimeout = time.Second
	maxAnswerHeader = 1 << 20
)

// upstream sends requests to the upstream, and tells how it fails.
type upstream struct {
	url        *url.URL
	dialer     *net.Dialer
	transports map[time.Duration]*http.Transport // by the time that an answer's header may take
	senders    map[time.Duration]http.RoundTripper
	counts     Counts
}

func newUpstream(config Config) *upstream {
	u := &upstream{
		url:        config.Upstream,
		dialer:     &net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlivePeriod},
		transports: map[time.Duration]*http.Transport{},
		senders:    map[time.Duration]http.RoundTripper{},
		counts:     config.Counts,
	}
	timeouts := []time.Duration{config.UpstreamTimeout}
	for _, rule := range config.Rules {
		if rule.UpstreamTimeout > 0 {
			timeouts = append(timeouts, rule.UpstreamTimeout)
		}
	}
	for _, timeout := range timeouts {
		// A Transport has one timeout for headers, and is the one that knows when a
		// client's body was sent, from when it counts.
		t := &http.Transport{
			DialContext:            u.dialer.DialContext,
			MaxIdleConns:           keptIdle,
			MaxIdleConnsPerHost:    keptIdle,
			IdleConnTimeout:        idleTimeout,
			TLSHandshakeTimeout:    dialTimeout,
			ResponseHeaderTimeout:  timeout,
			ExpectContinueTimeout:  continueTimeout,
			MaxResponseHeaderBytes: maxAnswerHeader,
			DisableCompression:     true, // the answer goes on as it came
			ForceAttemptHTTP2:      true, // of an upstream with TLS
			ReadBufferSize:         16 << 10,
			WriteBufferSize:        16 << 10,
		}
		u.transports[timeout], u.senders[timeout] = t, t
		if config.Around != nil {
			u.senders[timeout] = config.Around(t)
		}
	}
	return u
}

// RoundTrip makes upstream an http.RoundTripper.
func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	e := exchangeOf(r.Context())
	e.asked.Store(true)
	answered := u.counts.Asking()
	resp, err := u.senders[e.route.timeout].RoundTrip(r)
	if err != nil {
		if e.bodyError() != nil {
			answered("") // it is the client that failed
			return nil, err
		}
		kind, err := failed(r.Context(), err)
		answered(kind)
		return nil, err
	}
	answered("")
	if resp.StatusCode != http.StatusSwitchingProtocols { // whose body is a connection
		resp.Body = &countedBody{resp.Body, r.Context(), u.counts}
	}
	return resp, nil
}

// countedBody counts an answer that breaks off.
type countedBody struct {
	io.ReadCloser
	ctx    context.Context
	counts Counts
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && b.ctx.Err() == nil {
		b.counts.Cut(kindCut)
	}
	return n, err
}

// ping checks whether the upstream takes connections.
func (u *upstream) ping(ctx context.Context) error {
	conn, err := u.dialer.DialContext(ctx, "tcp", hostPort(u.url))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return conn.Close()
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func (u *upstream) close() {
	for _, t := range u.transports {
		t.CloseIdleConnections()
	}
}
