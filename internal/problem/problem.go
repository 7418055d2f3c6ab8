// Package problem is the body of an error response as RFC 9457 defines it.
package problem

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// Namespace begins the type of each problem that is fleetcall's own.
const Namespace = "urn:fleetcall:problem:"

// Problem is an error response. It is an error, too, so that a handler can return it.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`

	RetryAfter int `json:"-"` // seconds; 0: the response has no Retry-After
}

// Error returns the title.
func (p *Problem) Error() string { return p.Title }

// Name returns the type as logs have it, without the namespace.
func (p *Problem) Name() string { return strings.TrimPrefix(p.Type, Namespace) }

// Write writes the response.
func (p *Problem) Write(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil {
		return // never happens: four plain fields can always be encoded
	}
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	// An error here means that the client has left.
	_, _ = w.Write(append(body, '\n'))
}
