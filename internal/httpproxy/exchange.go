package httpproxy

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
)

// Exchange is what became of a request of a client.
type Exchange struct {
	Rule     string                // the path of the rule that held, or DefaultRule
	Decision coalescehttp.Decision // empty when the request ended before it
	Asked    bool                  // it was sent to the upstream
	Status   int                   // 0: the client left, or was cut off, before there was one
	Failed   bool                  // it got an error of the proxy's own, or an answer that broke off
	Left     bool                  // the client left before the end
	Took     time.Duration         // until the header of the answer was there, or the end
}

// exchange is a request of a client under way. It travels in the request's context: the
// flight that the request leads has it, too, maybe for longer than the client waits.
type exchange struct {
	route  *route
	id     string
	begun  time.Time
	client *http.Request // as it came
	asked  atomic.Bool

	mu       sync.Mutex
	decision coalescehttp.Decision // guarded by mu
	status   int                   // guarded by mu
	own      bool                  // the proxy answered by itself; guarded by mu
	took     time.Duration         // guarded by mu
	body     error                 // what reading the client's body failed with; guarded by mu
}

type exchangeKey struct{}

// exchangeOf returns the exchange that a request belongs to, or nil.
func exchangeOf(ctx context.Context) *exchange {
	e, _ := ctx.Value(exchangeKey{}).(*exchange)
	return e
}

// decided is told of the decision about a request.
func decided(r *http.Request, d coalescehttp.Decision) {
	e := exchangeOf(r.Context())
	e.mu.Lock()
	defer e.mu.Unlock()
	e.decision = d
}

func (e *exchange) decided() coalescehttp.Decision {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.decision
}

// answered notes the status of the answer that the client gets.
func (e *exchange) answered(status int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status, e.took = status, time.Since(e.begun)
}

// switched says whether the upstream's answer was a change of the protocol.
func (e *exchange) switched() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status == http.StatusSwitchingProtocols
}

// refused notes that the proxy answers by itself, or that it has no client left to answer.
func (e *exchange) refused(status int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status, e.own, e.took = status, true, time.Since(e.begun)
}

// end returns what became of the exchange. whole says whether the client got an answer to
// its end.
func (e *exchange) end(ctx context.Context, whole bool) Exchange {
	e.mu.Lock()
	defer e.mu.Unlock()
	ended := Exchange{
		Rule: e.route.name, Decision: e.decision, Asked: e.asked.Load(), Status: e.status,
		Failed: e.own || !whole, Left: ctx.Err() != nil && !whole, Took: e.took,
	}
	if ended.Took == 0 {
		ended.Took = time.Since(e.begun)
	}
	return ended
}

// log logs each request at the debug level. At other levels it does no work.
func (p *Proxy) log(ctx context.Context, e *exchange, ended Exchange) {
	level := slog.LevelDebug
	if !p.config.Logger.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String("method", e.client.Method), slog.String("path", e.client.URL.Path), slog.String("rule", ended.Rule)}
	if ended.Status != 0 {
		attrs = append(attrs, slog.Int("status", ended.Status))
	}
	attrs = append(attrs, slog.Duration("took", time.Since(e.begun)), slog.String("remote", e.client.RemoteAddr))
	if ended.Decision.Role != "" {
		attrs = append(attrs, slog.String("role", ended.Decision.Role))
	}
	if ended.Decision.Reason != "" {
		attrs = append(attrs, slog.String("reason", string(ended.Decision.Reason)))
	}
	if ended.Left {
		attrs = append(attrs, slog.Bool("client_gone", true))
	}
	p.config.Logger.LogAttrs(ctx, level, "request", attrs...)
}
