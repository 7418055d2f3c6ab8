// Package coalescehttp merges concurrent HTTP requests for the same thing into
// one: Transport those that a client sends, Middleware those that a server gets.
//
// It is no cache: an answer goes to those who asked while it was being made, and is
// gone. But one answer for several requests is what a shared cache gives, too, so what
// RFC 9111 forbids a shared cache is not done here. Where servers often say less than they
// should, the rules are stricter than the RFC. The tables below have all of them, with
// their sources; the tests of this package have a row for each.
//
// # Requests
//
// A request that is not merged is sent, or handled, as if this package were not there. The
// word is the Reason of its Decision.
//
//	method           it is neither GET nor HEAD                             RFC 9110 §9.2.1
//	method-override  X-HTTP-Method-Override, X-HTTP-Method or
//	                 X-Method-Override: it may be a POST in truth           (servers' custom)
//	body             it has a body                                          RFC 9110 §9.3.1
//	target           its URL is neither http nor https, or has no path      RFC 9110 §4.2
//	upgrade          Upgrade, or Connection: upgrade                        RFC 9110 §7.8
//	expect           Expect                                                 RFC 9110 §10.1.1
//	range            Range, If-Range                                        RFC 9110 §14.2, §13.1.5
//	precondition     If-Match, If-Unmodified-Since                          RFC 9110 §13.1.1, §13.1.4
//	own-answer       Cache-Control: no-store or no-cache, or one that
//	                 cannot be read; Pragma: no-cache without it            RFC 9111 §5.2.1, §5.4
//	cookie           Cookie, unless WithCookies or WithIdentity allow it    RFC 9111 §7.3
//	excluded         WithOnly left it out
//	remembered       an answer to such a request was not shared, a while ago (WithRemember)
//	closed           the fleet is closed
//
// # Keys
//
// Requests are merged when they agree in all of this:
//
//	target           method, scheme, host in lower case and without the
//	                 default port, path and query as they were sent         RFC 9110 §4.2.3, RFC 9111 §2
//	                 (see WithQueryParameters and WithSortedQuery)
//	validators       If-None-Match, If-Modified-Since: the same value       RFC 9110 §13.1.2, §13.1.3
//	cache-control    what else it says, such as max-age=0                   RFC 9111 §5.2.1
//	vary             the fields that Vary of earlier answers has named, and
//	                 Accept-Encoding if they had Content-Encoding. When the
//	                 answer of a flight names others, it is not given to
//	                 those who have other values in them                    RFC 9111 §4.1
//	credentials      whether there are any: Authorization,
//	                 Proxy-Authorization, a client's certificate, a user in
//	                 the URL, or Cookie under WithCookies                   RFC 9111 §3.5
//	identity         what WithIdentity returns
//	fields           those of WithKeyFields, and those by which servers
//	                 choose answers without naming them in Vary: Origin,
//	                 Early-Data, X-Forwarded-* (but For), X-Original-*,
//	                 X-Rewrite-URL, the host and proto of Forwarded, the
//	                 fields of scripts that ask for a part of a page, and
//	                 those whose name has a word that tells who asks, such
//	                 as Key, Token, Session, User, Tenant: X-Api-Key        RFC 8470 §5.1, RFC 7239, Fetch
//
// Nothing else is: not User-Agent, Accept or Accept-Language unless Vary names them, nor a
// client's address. A server whose answers depend on another field must say so in Vary, or
// the field must be given to WithKeyFields.
//
// # Answers
//
// An answer that is not shared goes to the request that led alone, and all others are sent
// for themselves, at once.
//
//	status           1xx; 304 to a request without validators. About one
//	                 request or connection, not about what was asked for:
//	                 400, 406, 408, 421, 425, 426, 428, 431, 511. About who
//	                 asks, unless the request is a program's own and not
//	                 one that it sends on for a client: 401, 403, 429, 451  RFC 9110 §15, RFC 6585, RFC 8470 §5.2
//	partial          206                                                    RFC 9111 §3.3
//	no-store         Cache-Control: no-store                                RFC 9111 §5.2.2.5
//	no-cache         Cache-Control: no-cache, with or without names of
//	                 fields; Pragma: no-cache without Cache-Control         RFC 9111 §5.2.2.4, §5.4
//	private          Cache-Control: private, without an identity            RFC 9111 §5.2.2.7
//	cache-control    Cache-Control that cannot be read                      RFC 9111 §4.2.1
//	                 (CDN-Cache-Control and Surrogate-Control forbid as
//	                 Cache-Control does, but allow nothing)                 RFC 9213
//	credentials      to a request with credentials and no identity: without
//	                 public, s-maxage or must-revalidate, or not fresh for
//	                 a second (s-maxage=0, max-age=0, Expires)              RFC 9111 §3.5, §5.2.2.2, §5.2.2.10
//	set-cookie       Set-Cookie                                             RFC 9111 §7.3
//	challenge        WWW-Authenticate, Authentication-Info and the like     RFC 9110 §11.6, RFC 7616 §3.3
//	vary             Vary: *, or one that cannot be read, or is very long   RFC 9110 §12.5.5
//	trailer          trailer fields                                         RFC 9110 §6.5
//	streams          text/event-stream, multipart/x-mixed-replace; a
//	                 handler that flushes
//	hijacked         the handler took the connection
//	unanswered       the handler has returned without an answer
//	too-large        the body is over the limit (WithBodyLimit)
//	slow             the body takes too long (WithBodyTimeout)
//	unreachable      there is none: the server could not be reached
//
// Errors, 404 and 503 for instance, are shared as any other answer: one failure, not a
// thousand retries. That an answer is stale from the start, as with max-age=0, does not
// matter to requests without credentials: it is as new as any of them could get. RFC 5861's
// stale-while-revalidate and stale-if-error are about answers that are kept, and mean
// nothing here.
//
// Followers get the leader's header without what belongs to its connection: Connection and
// the fields that it names, Keep-Alive, Proxy-*, TE, Trailer, Transfer-Encoding, Upgrade
// (RFC 9110 §7.6.1, RFC 9111 §3.1). Date and Age are as they came (RFC 9111 §5.1).
package coalescehttp
