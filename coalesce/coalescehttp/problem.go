package coalescehttp

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/fleetcall/fleetcall/coalesce"
)

// problem is an answer by RFC 9457. It says nothing of the inside.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

// problemOf returns the answer to a request that failed with its flight.
func problemOf(err error) problem {
	status, detail := http.StatusInternalServerError, "The request that this one was merged with has failed."
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		status, detail = http.StatusGatewayTimeout, "The answer took too long."
	case errors.Is(err, coalesce.ErrPoisoned):
		status, detail = http.StatusServiceUnavailable, "Every server that worked on this request has died."
	case errors.Is(err, coalesce.ErrUnavailable):
		status, detail = http.StatusServiceUnavailable, "Requests cannot be merged at the moment, and are not handled one by one."
	case errors.Is(err, context.Canceled):
		status, detail = http.StatusServiceUnavailable, "The request was cancelled."
	case errors.Is(err, ErrCutShort):
		detail = "The answer was cut short."
	}
	return problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

// retryAfter is how many seconds a client should wait when the service is unavailable.
const retryAfter = 1

func serveError(w http.ResponseWriter, r *http.Request, end ending) {
	p := problemOf(end.err)
	sign(w.Header(), end.decision)
	// What outer handlers have set is for the answer of the handler.
	w.Header().Del("Content-Encoding")
	w.Header().Del("Content-Length")
	w.Header().Del("ETag")
	w.Header().Del("Last-Modified")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/problem+json")
	if p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		_ = json.NewEncoder(w).Encode(p)
	}
}
