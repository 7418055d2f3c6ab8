package coalescehttp

// Reason says in a word why a request was not merged, or its answer not shared. The table
// in the package comment has the rule behind each.
type Reason string

// Why a request is not merged with others. Its answer is its own from the start.
const (
	ReasonMethod         Reason = "method"          // neither GET nor HEAD
	ReasonTarget         Reason = "target"          // neither an http nor an https URL with a path
	ReasonBody           Reason = "body"            // it has a body
	ReasonUpgrade        Reason = "upgrade"         // it asks for another protocol
	ReasonExpect         Reason = "expect"          // it has Expect
	ReasonMethodOverride Reason = "method-override" // a field names another method
	ReasonRange          Reason = "range"           // it asks for a part
	ReasonPrecondition   Reason = "precondition"    // it has If-Match or If-Unmodified-Since
	ReasonOwnAnswer      Reason = "own-answer"      // its Cache-Control asks for an answer of its own
	ReasonCookie         Reason = "cookie"          // it has Cookie
	ReasonExcluded       Reason = "excluded"        // WithOnly left it out
	ReasonRemembered     Reason = "remembered"      // an answer to such a request was not shared a short while ago
	ReasonClosed         Reason = "closed"          // the fleet is closed
)

// Why an answer is not shared.
const (
	ReasonStatus       Reason = "status"        // its status is about one request or connection
	ReasonPartial      Reason = "partial"       // it is a part
	ReasonNoStore      Reason = "no-store"      // Cache-Control says so
	ReasonNoCache      Reason = "no-cache"      // Cache-Control or Pragma says so
	ReasonPrivate      Reason = "private"       // Cache-Control says so, and no identity is in the key
	ReasonCacheControl Reason = "cache-control" // Cache-Control cannot be read
	ReasonCredentials  Reason = "credentials"   // the request has credentials, and Cache-Control does not allow to share
	ReasonSetCookie    Reason = "set-cookie"    // it sets a cookie
	ReasonChallenge    Reason = "challenge"     // it is a step of one client's authentication
	ReasonVary         Reason = "vary"          // Vary is *, too long, or cannot be read
	ReasonTrailer      Reason = "trailer"       // it has trailer fields
	ReasonStreams      Reason = "streams"       // it is sent bit by bit
	ReasonHijacked     Reason = "hijacked"      // the handler took the connection
	ReasonUnanswered   Reason = "unanswered"    // the handler has returned without an answer
	ReasonTooLarge     Reason = "too-large"     // its body is over the limit
	ReasonSlow         Reason = "slow"          // its body takes too long
	ReasonUnreachable  Reason = "unreachable"   // there is none: the server could not be reached
)

// Reasons returns all of them: the values that metrics may have.
func Reasons() []Reason {
	return []Reason{
		ReasonMethod, ReasonTarget, ReasonBody, ReasonUpgrade, ReasonExpect, ReasonMethodOverride, ReasonRange,
		ReasonPrecondition, ReasonOwnAnswer, ReasonCookie, ReasonExcluded, ReasonRemembered, ReasonClosed,
		ReasonStatus, ReasonPartial, ReasonNoStore, ReasonNoCache, ReasonPrivate, ReasonCacheControl, ReasonCredentials,
		ReasonSetCookie, ReasonChallenge, ReasonVary, ReasonTrailer, ReasonStreams, ReasonHijacked, ReasonUnanswered, ReasonTooLarge, ReasonSlow, ReasonUnreachable,
	}
}

// lasting says whether the next answer for the same key will probably not be shared
// either. A status that is about one request says nothing about the next one: if it were
// remembered, a client could send a malformed request now and then, and nobody's requests
// for the key would be merged any more.
func (reason Reason) lasting() bool {
	switch reason {
	case ReasonPartial, ReasonNoStore, ReasonNoCache, ReasonPrivate, ReasonCacheControl, ReasonCredentials, ReasonSetCookie,
		ReasonChallenge, ReasonVary, ReasonTrailer, ReasonStreams, ReasonHijacked, ReasonTooLarge, ReasonSlow:
		return true
	}
	return false
}
