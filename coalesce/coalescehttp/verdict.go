package coalescehttp

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// answer returns why the answer with this status and header is not shared, or "". It is
// asked as soon as there is a header. trailer says that trailer fields were announced, and
// limit is the longest body that is shared, in bytes.
func (q *request) answer(status int, header http.Header, trailer bool, limit int) Reason {
	header = regular(header)
	if reason := q.status(status); reason != "" {
		return reason
	}
	if reason := q.cacheControl(header); reason != "" {
		return reason
	}
	if len(header["Set-Cookie"]) > 0 {
		return ReasonSetCookie
	}
	for _, name := range [...]string{"Www-Authenticate", "Proxy-Authenticate", "Authentication-Info", "Proxy-Authentication-Info"} {
		if len(header[name]) > 0 {
			return ReasonChallenge
		}
	}
	if _, ok := varyOf(header); !ok {
		return ReasonVary
	}
	if trailer || hasTrailer(header) {
		return ReasonTrailer
	}
	if isStream(header) {
		return ReasonStreams
	}
	if q.r.Method != http.MethodHead && status != http.StatusNotModified && isLonger(header, limit) {
		return ReasonTooLarge
	}
	return ""
}

// status returns why answers with a status are not shared. Errors are shared as any other
// answer is, since one failure is better than a thousand retries: but not those that are
// about one request's own form, which a client could make on purpose for others to get
// (cache-poisoned denial of service), about one connection, or about who asks. RFC 6585
// forbids to store 428, 429, 431 and 511.
func (q *request) status(status int) Reason {
	switch status {
	case http.StatusPartialContent:
		return ReasonPartial
	case http.StatusNotModified:
		if !q.conditional {
			return ReasonStatus
		}
	case http.StatusBadRequest, http.StatusNotAcceptable, http.StatusRequestTimeout, http.StatusMisdirectedRequest, http.StatusTooEarly,
		http.StatusUpgradeRequired, http.StatusPreconditionRequired, http.StatusRequestHeaderFieldsTooLarge,
		http.StatusNetworkAuthenticationRequired:
		return ReasonStatus
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusUnavailableForLegalReasons:
		// A server that this program asks knows it as one client. When its limit is reached,
		// to ask once more for each caller would be the worst to do.
		if received(q.r) {
			return ReasonStatus
		}
	}
	if status < 200 {
		return ReasonStatus
	}
	return ""
}

// cacheControl returns what forbids to share, by RFC 9111, §3, §3.5 and §5.2.2.
func (q *request) cacheControl(header http.Header) Reason {
	directives, ok := parseCacheControl(header["Cache-Control"])
	for _, name := range [...]string{"Cdn-Cache-Control", "Surrogate-Control"} {
		targeted, readable := parseCacheControl(header[name])
		directives.forbid(targeted)
		ok = ok && readable
	}
	switch {
	case !ok:
		return ReasonCacheControl
	case directives.noStore:
		return ReasonNoStore
	case directives.noCache || len(header["Cache-Control"]) == 0 && hasToken(header["Pragma"], "no-cache"):
		return ReasonNoCache
	case q.identity != "":
		return ""
	case directives.private:
		return ReasonPrivate
	case q.credentials && !directives.allowShared(header):
		return ReasonCredentials
	}
	return ""
}

// allowShared says whether the answer to one who has credentials may be given to another.
// A server that allows it, but gives the answer no time in which it is fresh, wants to be
// asked for each of them (RFC 9111, §3.5).
func (c *cacheControl) allowShared(header http.Header) bool {
	fresh := c.sharedMaxAge
	if fresh == unsaid {
		fresh = c.maxAge
	}
	if fresh == zero || fresh == unsaid && expired(header) {
		return false
	}
	return c.public || c.mustRevalidate || c.sharedMaxAge == positive
}

func expired(header http.Header) bool {
	if len(header["Expires"]) == 0 {
		return false
	}
	at, err := http.ParseTime(header["Expires"][0])
	if err != nil {
		return true // RFC 9111, §5.3
	}
	made, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		made = time.Now()
	}
	return !at.After(made)
}

// hasTrailer says whether trailer fields are announced, or a handler has set one already.
func hasTrailer(header http.Header) bool {
	if len(header["Trailer"]) > 0 {
		return true
	}
	for name := range header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

// isStream says whether the media type is one of an answer that has no end.
func isStream(header http.Header) bool {
	for _, value := range header["Content-Type"] {
		mediaType, _, _ := strings.Cut(value, ";")
		switch lower(trimSpace(mediaType)) {
		case "text/event-stream", "multipart/x-mixed-replace":
			return true
		}
	}
	return false
}

func isLonger(header http.Header, limit int) bool {
	for _, value := range header["Content-Length"] {
		if length, err := strconv.ParseInt(trimSpace(value), 10, 64); err == nil && length > int64(limit) {
			return true
		}
	}
	return false
}

// hopByHop are the fields for one connection alone (RFC 9110, §7.6.1), and those that
// this package adds to each answer anew.
var hopByHop = [...]string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization", "Proxy-Connection",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", RoleHeader, FlightHeader,
}

// shared returns the header of an answer as followers get it: a copy without what belongs
// to the leader's connection.
func shared(header http.Header) http.Header {
	copied := regular(header).Clone()
	if copied == nil {
		copied = http.Header{}
	}
	for _, value := range copied["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			delete(copied, http.CanonicalHeaderKey(trimSpace(name)))
		}
	}
	for _, name := range hopByHop {
		delete(copied, name)
	}
	return copied
}
