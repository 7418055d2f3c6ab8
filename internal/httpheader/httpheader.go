// Package httpheader has the rules for headers that a replica and the built-in balancer
// share. deploy/nginx.conf follows the same rules.
package httpheader

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"strings"
)

// Common returns the headers of every response except the request id. They forbid a
// browser to run, frame, keep, or guess the type of the response. Responses may share
// the slices of values: a response may replace a slice but must not change its
// elements.
func Common() http.Header {
	h := http.Header{}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	return h
}

// RequestID is the header that carries the id of a request, in the request and in its
// response.
const RequestID = "X-Request-Id"

// maxIDLength is the length of the longest id that is taken from a client.
const maxIDLength = 128

// RequestIDOf returns the id of a request with this header. It is the client's own id,
// or a new one if the client's is missing, too long, or has characters with which it
// could forge a log line.
func RequestIDOf(header http.Header) string {
	id := header.Get(RequestID)
	if id == "" || len(id) > maxIDLength || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return newID()
	}
	return id
}

// newID returns 128 random bits in the format of nginx's own ids. An id only tells
// requests apart, so it need not be hard to guess.
func newID() string {
	var id [16]byte
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
	return hex.EncodeToString(id[:])
}
