package coalescegrpc

import (
	"context"
	"slices"
	"strings"
)

// Option is a setting of an interceptor.
type Option func(*settings)

type settings struct {
	metadata []string // in lower case, sorted, each once
	identity func(context.Context) string
	public   bool
}

func newSettings(opts []Option) settings {
	var s settings
	for _, opt := range opts {
		opt(&s)
	}
	slices.Sort(s.metadata)
	s.metadata = slices.Compact(s.metadata)
	return s
}

// WithMetadata makes the values of these keys of a call's metadata part of what makes two
// calls the same: those that a server receives, such as ":authority" and
// "accept-language", or that a client sends.
func WithMetadata(keys ...string) Option {
	return func(s *settings) {
		for _, key := range keys {
			s.metadata = append(s.metadata, strings.ToLower(key))
		}
	}
}

// WithIdentity makes what identity returns part of what makes two calls the same: the
// tenant or the user, and all else that the answer depends on and that is not in the
// request. It is given the context of the call, as the interceptors before this one have
// left it. Calls with credentials are merged unless it returns "".
//
// Who can make up an identity gets the answers of its owner. Return what proves it, such as
// the token itself, or what an interceptor before has verified; never a name that the call
// only claims to have. What it returns stands in no key as it is.
func WithIdentity(identity func(context.Context) string) Option {
	return func(s *settings) { s.identity = identity }
}

// WithPublic says that the methods answer every caller the same: calls with credentials are
// merged whoever makes them. Those who may not have the answer must be refused before.
func WithPublic() Option { return func(s *settings) { s.public = true } }
