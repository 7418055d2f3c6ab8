package coalescehttp

import (
	"context"
	"net/http"
	"time"
)

// Option is a setting of a Transport or a Middleware.
type Option func(*settings)

// settings are those of one Transport or Middleware.
type settings struct {
	rules     rules
	bodyLimit int
	bodyTime  time.Duration // from an answer's header to the end of its body
	remember  time.Duration // how long a key is remembered as one whose answers are not shared
	observe   func(*http.Request, Decision)
	only      func(*http.Request) bool
}

const (
	defaultBodyLimit = 1 << 20
	defaultBodyTime  = 5 * time.Second
	defaultRemember  = 30 * time.Second
)

func newSettings(opts []Option) *settings {
	s := &settings{bodyLimit: defaultBodyLimit, bodyTime: defaultBodyTime, remember: defaultRemember}
	for _, opt := range opts {
		opt(s)
	}
	return s
}

// WithBodyLimit sets how large a body is shared, in bytes; the default is 1 MiB. A
// larger one is sent to each for itself.
func WithBodyLimit(bytes int) Option { return func(s *settings) { s.bodyLimit = bytes } }

// WithBodyTimeout sets how long a body may take from its header on to be shared; the
// default is 5 s. Those who wait for a slower one, which may have no end, get their own.
func WithBodyTimeout(d time.Duration) Option { return func(s *settings) { s.bodyTime = d } }

// bodyTimeout returns how long to wait for the body of an answer whose header is there.
// What is left until the flight timeout is not used up: past that, the followers would
// get an error.
func (s *settings) bodyTimeout(flight context.Context) time.Duration {
	if deadline, ok := flight.Deadline(); ok {
		return min(s.bodyTime, time.Until(deadline)*4/5)
	}
	return s.bodyTime
}

// WithRemember sets how long a key whose answer could not be shared is remembered, so
// that requests for it do not wait for each other; the default is 30 s.
func WithRemember(d time.Duration) Option { return func(s *settings) { s.remember = d } }

// WithObserver has observe called once for each request, when its header is known.
func WithObserver(observe func(*http.Request, Decision)) Option {
	return func(s *settings) { s.observe = observe }
}

// WithOnly merges only requests for which only returns true.
func WithOnly(only func(*http.Request) bool) Option { return func(s *settings) { s.only = only } }

// WithKeyFields adds fields of the request to the key: those on which answers depend
// although their Vary does not say so.
func WithKeyFields(names ...string) Option {
	return func(s *settings) {
		for _, name := range names {
			s.rules.fields = append(s.rules.fields, http.CanonicalHeaderKey(name))
		}
	}
}

// WithSortedQuery makes a query's parameters the same in any order. Those of one name keep
// theirs. A query is left as it is if a server might read it in another way: with a
// semicolon, or a name of other characters than letters, digits, - and _.
func WithSortedQuery() Option { return func(s *settings) { s.rules.sortQuery = true } }

// WithQueryParameters makes only these query parameters part of the key, in upper or lower
// case. Others that a server might take for one of them are part of it, too: those with a
// name of other characters than letters, digits, - and _, and all in a query with a
// semicolon.
func WithQueryParameters(names ...string) Option {
	return func(s *settings) {
		s.rules.parameters = []string{}
		for _, name := range names {
			s.rules.parameters = append(s.rules.parameters, lower(name))
		}
	}
}

// WithIdentity adds to the key who the caller is. An answer that is private, or to a request
// with Cookie or Authorization, is shared among callers of one identity, unless that is
// empty: then the rules for anybody hold.
//
// Who can make up an identity gets the private answers of its owner. Return what proves it,
// such as the session's cookie or the token itself, or what this server has verified before;
// never a name that the request only claims to have. It is called once for each request,
// and what it returns stands in no key as it is.
func WithIdentity(identity func(*http.Request) string) Option {
	return func(s *settings) { s.rules.identity = identity }
}

// WithCookies treats a request with Cookie as one with Authorization: its answer is shared
// if its Cache-Control says that it may be.
func WithCookies() Option { return func(s *settings) { s.rules.cookies = true } }
