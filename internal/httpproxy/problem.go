package httpproxy

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/internal/httpheader"
	"github.com/fleetcall/fleetcall/internal/problem"
)

var (
	problemUnreachable = &problem.Problem{Type: problem.Namespace + "upstream-unreachable", Title: "Upstream unreachable",
		Status: http.StatusBadGateway, Detail: "The server behind this proxy takes no connection."}
	problemBroken = &problem.Problem{Type: problem.Namespace + "upstream-broken", Title: "Upstream broke off",
		Status: http.StatusBadGateway, Detail: "The server behind this proxy ended the connection before its answer was whole."}
	problemGarbage = &problem.Problem{Type: problem.Namespace + "upstream-garbage", Title: "Upstream's answer unreadable",
		Status: http.StatusBadGateway, Detail: "The server behind this proxy sent what is not HTTP."}
	problemTimeout = &problem.Problem{Type: problem.Namespace + "upstream-timeout", Title: "Upstream timed out",
		Status: http.StatusGatewayTimeout, Detail: "The server behind this proxy did not answer within the time that it has."}
	problemCoordination = &problem.Problem{Type: problem.Namespace + "coordination-unavailable", Title: "Coordination unavailable",
		Status: http.StatusServiceUnavailable, Detail: "The replicas could not agree on who asks the server behind them. Try again later.", RetryAfter: 5}
	problemInternal = &problem.Problem{Type: problem.Namespace + "internal", Title: "Internal error",
		Status: http.StatusInternalServerError, Detail: "Something went wrong here. The proxy's log says what."}
	problemBody = &problem.Problem{Type: problem.Namespace + "bad-body", Title: "Body unreadable",
		Status: http.StatusBadRequest, Detail: "The request's body broke off, or is not encoded as HTTP wants it."}
	problemConnect = &problem.Problem{Type: "about:blank", Title: http.StatusText(http.StatusMethodNotAllowed),
		Status: http.StatusMethodNotAllowed, Detail: "This is a proxy for one server, and makes no tunnels."}
)

// problemOf chooses the problem for an error. It compares with errors.Is, because an error
// that comes from another replica keeps its sentinels but not its type.
func problemOf(err error) *problem.Problem {
	switch {
	case errors.Is(err, ErrUnreachable):
		return problemUnreachable
	case errors.Is(err, ErrTimeout), errors.Is(err, coalesce.ErrFlightTimeout), errors.Is(err, context.DeadlineExceeded):
		return problemTimeout
	case errors.Is(err, ErrBroken), errors.Is(err, coalescehttp.ErrCutShort):
		return problemBroken
	case errors.Is(err, ErrGarbage):
		return problemGarbage
	case errors.Is(err, coalesce.ErrUnavailable), errors.Is(err, coalesce.ErrPoisoned), errors.Is(err, coalesce.ErrClosed):
		return problemCoordination
	}
	return problemInternal
}

// refuse answers a request for which there is no answer of the upstream. It is httputil's
// ErrorHandler.
func (p *Proxy) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := exchangeOf(r.Context())
	if r.Context().Err() != nil {
		e.refused(0)
		// The connection is closed: a client that only stopped sending must not take an
		// empty answer for the upstream's.
		panic(http.ErrAbortHandler)
	}
	found := problemOf(err)
	switch {
	case e.bodyError() != nil:
		found = problemBody
	case e.switched():
		found = problemGarbage // to another protocol than the client asked for
	}
	p.logFailure(r.Context(), e, found, err)
	p.writeProblem(w, e, found)
}

// logFailure logs once a second for each type of problem, because an upstream that is down
// fails as many requests as come.
func (p *Proxy) logFailure(ctx context.Context, e *exchange, found *problem.Problem, err error) {
	if found.Status < http.StatusInternalServerError || !p.failures.Allow(found.Type) {
		return
	}
	p.config.Logger.LogAttrs(ctx, slog.LevelWarn, "answered with an error", slog.Int("status", found.Status),
		slog.String("type", found.Name()), slog.Any("error", err),
		slog.String("method", e.client.Method), slog.String("path", e.client.URL.Path))
}

func (p *Proxy) writeProblem(w http.ResponseWriter, e *exchange, found *problem.Problem) {
	e.refused(found.Status)
	h := w.Header()
	maps.Copy(h, httpheader.Common())
	h.Set(httpheader.RequestID, e.id)
	if p.config.Replica != "" {
		h.Set("X-Replica", p.config.Replica)
	}
	if d := e.decided(); d.Role != "" {
		h.Set(coalescehttp.RoleHeader, d.Role)
		if d.Flight != "" {
			h.Set(coalescehttp.FlightHeader, d.Flight)
		}
	}
	found.Write(w)
}
