package coalescegrpc

import (
	"context"

	"google.golang.org/grpc/metadata"
)

// FingerprintOf is the fingerprint of any message, generated or not.
var FingerprintOf = fingerprint

// NewReply returns a Reply with these parts.
func NewReply(message []byte, header, trailer metadata.MD) *Reply {
	return &Reply{message: message, header: header, trailer: trailer}
}

// Parts returns what a Reply is made of.
func (r *Reply) Parts() (message []byte, header, trailer metadata.MD) {
	return r.message, r.header, r.trailer
}

// Subject is what makes two calls the same.
type Subject struct {
	Method            string
	In, Out           uint64 // fingerprints
	Request           []byte
	Metadata          metadata.MD
	Identity          string
	Target, Authority string
}

// Key returns the key of a call, of whose metadata these keys are named.
func (s Subject) Key(named ...string) string {
	set := newSettings([]Option{WithMetadata(named...)})
	return set.key(subject{
		method:  &method{name: s.Method, request: s.In, reply: s.Out},
		request: s.Request, metadata: s.Metadata, identity: s.Identity, target: s.Target, authority: s.Authority,
	})
}

// MustBeAlone says whether a call with this metadata, of which these keys are named, runs
// alone.
func MustBeAlone(md metadata.MD, named ...string) bool {
	set := newSettings([]Option{WithMetadata(named...)})
	_, alone := set.caller(context.Background(), md, false)
	return alone
}
