// Package httpmatrix has a row for each rule by which HTTP requests are merged and answers
// shared, and holds any front of a server to them: coalescehttp's Transport and
// Middleware, and fleetcall proxy. Each row is played over real connections, by clients of
// two replicas of the front.
package httpmatrix

import (
	"net/http"
	"testing"
)

// Front is what stands between clients and a server.
type Front struct {
	// Start starts replicas of one fleet before origin. It stops them when the test ends.
	Start func(t testing.TB, origin http.Handler, replicas int, s Settings) Replicas
}

// Replicas are those of one fleet that Start has started.
type Replicas struct {
	URLs []string
	// Waiting returns how many requests have joined a flight, in all replicas, those
	// included that lead one.
	Waiting func() int
}

// Settings are what a row needs of the front. The zero value is the default.
type Settings struct {
	IdentityField   string // the field of a request that has the caller's identity
	Cookies         bool   // a request with Cookie is merged, if its answer allows it
	KeyFields       []string
	SortedQuery     bool
	QueryParameters []string // nil: all are in the key
	BodyLimit       int      // 0: the default
}
