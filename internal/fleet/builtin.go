package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"path"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/internal/httpheader"
)

// builtin is a round-robin balancer in this process.
type builtin struct {
	server *http.Server
	routes *roundRobin
	served chan error
}

func startBuiltin(listen string, addrs []string, logs io.Writer) (*builtin, error) {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: listening on %s: %w", listen, err)
	}
	routes := &roundRobin{transport: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 4096,
		IdleConnTimeout:     30 * time.Second,
	}}
	routes.addrs.Store(&addrs)
	logger := log.New(logs, "", 0)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme = "http"
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport: routes,
		ErrorLog:  logger,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				logger.Printf("%s %s: %v", r.Method, r.URL.Path, err)
			}
			refuse(w, r, http.StatusBadGateway, "No replica answered.")
		},
	}
	b := &builtin{
		server: &http.Server{
			Handler: withRequestID(hideMetrics(proxy)), ErrorLog: logger,
			ReadHeaderTimeout: 15 * time.Second, IdleTimeout: 75 * time.Second, MaxHeaderBytes: 64 << 10,
		},
		routes: routes,
		served: make(chan error, 1),
	}
	go func() { b.served <- b.server.Serve(l) }()
	return b, nil
}

// withRequestID sets the request's id before the request reaches a replica, so that the
// response has the same id whether a replica or the balancer sends it.
func withRequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set(httpheader.RequestID, httpheader.RequestIDOf(r.Header))
		next.ServeHTTP(w, r)
	})
}

// refuse sends a response of the balancer's own. It has all headers of a replica's
// response except X-Replica.
func refuse(w http.ResponseWriter, r *http.Request, status int, detail string) {
	h := w.Header()
	maps.Copy(h, httpheader.Common())
	h.Set(httpheader.RequestID, r.Header.Get(httpheader.RequestID))
	h.Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"type":"about:blank","title":%q,"status":%d,"detail":%q}`+"\n", http.StatusText(status), status, detail)
}

// hideMetrics refuses /metrics, as deploy/nginx.conf does, because the client would get
// the metrics of an arbitrary replica.
func hideMetrics(proxy http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path.Clean(r.URL.Path) == "/metrics" {
			refuse(w, r, http.StatusNotFound, "Each replica has metrics of its own; the balancer has none.")
			return
		}
		proxy.ServeHTTP(w, r)
	})
}

func (b *builtin) name() string { return "built in" }

func (b *builtin) setReplicas(_ context.Context, addrs []string) error {
	b.routes.addrs.Store(&addrs)
	return nil
}

func (b *builtin) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := b.server.Shutdown(ctx)
	if err != nil {
		err = b.server.Close()
	}
	b.routes.transport.CloseIdleConnections()
	if served := <-b.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// roundRobin sends each request to the next replica. If a replica does not answer a GET
// or HEAD, the request goes to the one after it.
type roundRobin struct {
	transport *http.Transport
	addrs     atomic.Pointer[[]string]
	next      atomic.Uint64
}

func (r *roundRobin) RoundTrip(req *http.Request) (*http.Response, error) {
	addrs := *r.addrs.Load()
	if len(addrs) == 0 {
		return nil, errors.New("there is no replica")
	}
	first := r.next.Add(1) - 1
	tries := 1
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		tries = len(addrs)
	}
	var resp *http.Response
	var err error
	for i := range tries {
		out := req.WithContext(req.Context())
		url := *req.URL
		url.Host = addrs[(first+uint64(i))%uint64(len(addrs))]
		out.URL = &url
		if resp, err = r.transport.RoundTrip(out); err == nil || req.Context().Err() != nil {
			return resp, err
		}
	}
	return nil, err
}
