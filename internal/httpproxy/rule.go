package httpproxy

import (
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
)

// Rule says what becomes of the requests for some paths. A zero setting is the proxy's
// default.
type Rule struct {
	// Path has the segments of the path, of which * stands for any one, and ** at the end
	// for any number of them, none included.
	Path string
	// Alone sends every request to the upstream for itself.
	Alone bool
	// QueryParameters are those that make a difference; nil: all do, and so does their order
	// unless SortQuery is set.
	QueryParameters []string
	SortQuery       bool
	// Fields are those of the request's header that make a difference, besides those that
	// an answer's Vary names.
	Fields []string
	// IdentityField or IdentityCookie says who the caller is. Callers of one identity share
	// answers that are private.
	IdentityField, IdentityCookie string
	// Cookies shares answers to requests with cookies, if they say that they may be shared.
	Cookies bool

	BodyLimit       int           // of the answers that are shared, in bytes
	BodyTimeout     time.Duration // from the header of a shared answer to the end of its body
	UpstreamTimeout time.Duration // until the header of the answer is there
	FlightTimeout   time.Duration // of a request that is shared
	Remember        time.Duration // how long it is remembered that an answer could not be shared
}

// options are the rule's for the transport that merges its requests.
func (r *Rule) options() []coalescehttp.Option {
	var opts []coalescehttp.Option
	if r.Alone {
		return append(opts, coalescehttp.WithOnly(func(*http.Request) bool { return false }))
	}
	if r.QueryParameters != nil {
		opts = append(opts, coalescehttp.WithQueryParameters(r.QueryParameters...))
	}
	if r.SortQuery {
		opts = append(opts, coalescehttp.WithSortedQuery())
	}
	if len(r.Fields) > 0 {
		opts = append(opts, coalescehttp.WithKeyFields(r.Fields...))
	}
	if identity := r.identity(); identity != nil {
		opts = append(opts, coalescehttp.WithIdentity(identity))
	}
	if r.Cookies {
		opts = append(opts, coalescehttp.WithCookies())
	}
	if r.BodyLimit > 0 {
		opts = append(opts, coalescehttp.WithBodyLimit(r.BodyLimit))
	}
	if r.BodyTimeout > 0 {
		opts = append(opts, coalescehttp.WithBodyTimeout(r.BodyTimeout))
	}
	if r.Remember > 0 {
		opts = append(opts, coalescehttp.WithRemember(r.Remember))
	}
	return opts
}

// identity returns the function that says who a request's caller is, or nil. A field or
// cookie that comes more than once names nobody: the upstream may take another one of them.
func (r *Rule) identity() func(*http.Request) string {
	switch {
	case r.IdentityField != "":
		return func(req *http.Request) string {
			if values := req.Header.Values(r.IdentityField); len(values) == 1 {
				return values[0]
			}
			return ""
		}
	case r.IdentityCookie != "":
		return func(req *http.Request) string {
			if cookies := req.CookiesNamed(r.IdentityCookie); len(cookies) == 1 {
				return cookies[0].Value
			}
			return ""
		}
	}
	return nil
}

// pattern is a rule's path, cut into its segments.
type pattern struct {
	segments []string
	rest     bool // any number of segments may follow
}

func newPattern(text string) pattern {
	segments := strings.Split(strings.TrimPrefix(text, "/"), "/")
	if last := len(segments) - 1; segments[last] == "**" {
		return pattern{segments[:last], true}
	}
	return pattern{segments: segments}
}

// matches takes segments of a path as segmentsOf returns them.
func (p pattern) matches(segments []string) bool {
	if len(segments) < len(p.segments) || len(segments) > len(p.segments) && !p.rest {
		return false
	}
	for i, want := range p.segments {
		if want != segments[i] && (want != "*" || segments[i] == "") {
			return false
		}
	}
	return true
}

// covers says whether p matches every path that q matches.
func (p pattern) covers(q pattern) bool {
	return p.matches(q.segments) && (p.rest || !q.rest)
}

// segmentsOf cuts a path into its segments, decoded, without empty ones, "." and "..", as
// nginx does for its locations: a rule must hold for every way to write the path that the
// upstream may take for the same.
func segmentsOf(u *url.URL) []string {
	clean := path.Clean("/" + u.Path)
	if strings.HasSuffix(u.Path, "/") && clean != "/" {
		clean += "/"
	}
	return strings.Split(clean[1:], "/")
}
