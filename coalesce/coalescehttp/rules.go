package coalescehttp

import (
	"net/http"
	"slices"
	"strings"
)

// rules say which requests are merged, what their key is, and which answers are shared.
type rules struct {
	fields     []string // canonical
	sortQuery  bool
	parameters []string // in lower case; nil: all
	identity   func(*http.Request) string
	cookies    bool
}

// request is one that may be merged. What decides on sharing is read once, so that the key
// and the verdict on the answer cannot disagree, whatever the identity function returns the
// next time.
//
// The fields that Vary names are read at each call: the header of r must not change, and a
// handler, which may change its request's, needs one of its own.
type request struct {
	r           *http.Request
	identity    string
	credentials bool // it has some, and no identity stands for them
	conditional bool
	irregular   bool   // some names of its fields are not in canonical form
	target      string // the start of the key, for people
	base        []byte // all of the key but the fields that Vary names
	plain       bool   // target says all that base does
}

// request returns what is to be known of r, or why it is not merged with others.
func (ru *rules) request(r *http.Request) (*request, Reason) {
	if r.Method != "" && r.Method != http.MethodGet && r.Method != http.MethodHead {
		return nil, ReasonMethod
	}
	if r.URL == nil {
		return nil, ReasonTarget
	}
	if hasBody(r) {
		return nil, ReasonBody
	}
	q := &request{r: r}
	fields, reason := ru.fieldsOf(r)
	if reason != "" {
		return nil, reason
	}
	q.conditional, q.irregular = fields.conditional, fields.irregular
	if ru.identity != nil {
		q.identity = ru.identity(r)
	}
	if fields.cookie && q.identity == "" && !ru.cookies {
		return nil, ReasonCookie
	}
	q.credentials = q.identity == "" && (fields.cookie || fields.authorized || r.URL.User != nil || hasClientCertificate(r))
	if !q.identify(ru, fields.keyed) {
		return nil, ReasonTarget
	}
	return q, ""
}

// fields are what the fields of a request say.
type fields struct {
	keyed                                      []string // the names of those that go into the key
	authorized, cookie, conditional, irregular bool
}

// fieldsOf looks at each field once, or returns why a request with such a field is not
// merged.
func (ru *rules) fieldsOf(r *http.Request) (f fields, reason Reason) {
	for name, values := range r.Header {
		if len(values) == 0 {
			continue
		}
		canonical := http.CanonicalHeaderKey(name)
		f.irregular = f.irregular || canonical != name
		// To many applications (CGI, WSGI), X_Forwarded_Host is X-Forwarded-Host.
		if strings.Contains(name, "_") {
			canonical = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
		}
		class, reason := classify(canonical)
		if reason != "" {
			return fields{}, reason
		}
		switch class {
		case fieldCredentials:
			f.authorized = true
		case fieldCookie:
			f.cookie = true
		case fieldCondition:
			f.conditional = true
			class = fieldKeyed
		case fieldConnection:
			if hasToken(values, "upgrade") {
				return fields{}, ReasonUpgrade
			}
		case fieldPragma:
			if len(r.Header["Cache-Control"]) == 0 && hasToken(values, "no-cache") {
				return fields{}, ReasonOwnAnswer
			}
		case fieldCacheControl:
			// An answer that a cache before the server has kept may do for one client and
			// be too old for another, who asks for max-age=0.
			directives, ok := parseCacheControl(values)
			if !ok || directives.noStore || directives.noCache {
				return fields{}, ReasonOwnAnswer
			}
			class = fieldKeyed
		}
		if class == fieldKeyed || slices.Contains(ru.fields, canonical) {
			f.keyed = append(f.keyed, name)
		}
	}
	return f, ""
}

// received says whether r came in from a client, rather than being made by this program.
// A reverse proxy sends on what came in: one that is written by hand has to remove
// RequestURI, which http.Client refuses, but not RemoteAddr.
func received(r *http.Request) bool { return r.RequestURI != "" || r.RemoteAddr != "" }

// hasBody trusts the length of a request that came in: programs wrap its Body, for instance
// in a MaxBytesReader, whether there is one or not. An outgoing request may have a body of
// unknown length with the length 0.
func hasBody(r *http.Request) bool {
	return r.ContentLength != 0 || len(r.Trailer) > 0 || r.RequestURI == "" && r.Body != nil && r.Body != http.NoBody
}

func hasClientCertificate(r *http.Request) bool {
	return r.TLS != nil && len(r.TLS.PeerCertificates) > 0
}

// hasToken says whether a comma-separated list has the token, in any case.
func hasToken(values []string, token string) bool {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(trimSpace(part), token) {
				return true
			}
		}
	}
	return false
}

// trimSpace removes what RFC 9110 (§5.6.3) calls optional white space. strings.TrimSpace
// removes more.
func trimSpace(s string) string { return strings.Trim(s, " \t") }
