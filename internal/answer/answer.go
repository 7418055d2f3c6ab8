// Package answer is what all answers of a fleet have, whether a replica gives
// them or the balancer does. deploy/nginx.conf has the same rules.
package answer

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"strings"
)

// Headers returns the headers of every answer, besides its id, which forbid a
// browser to run, frame, sniff and keep it. All answers may share the values:
// they may be replaced, not changed.
func Headers() http.Header {
	h := http.Header{}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	return h
}

// RequestID is the header with a request's id, and its answer's.
const RequestID = "X-Request-Id"

// maxID is how long a client's id may be to be kept.
const maxID = 128

// IDOf returns the id of a request with this header: the client's own, or a new
// one where that is missing, too long, or has characters that could forge a log
// line.
func IDOf(header http.Header) string {
	id := header.Get(RequestID)
	if id == "" || len(id) > maxID || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return newID()
	}
	return id
}

// newID returns 128 random bits as nginx writes its own. They tell requests apart,
// and are no secret.
func newID() string {
	var id [16]byte
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
	return hex.EncodeToString(id[:])
}
