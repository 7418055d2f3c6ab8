package coalescegrpc

import (
	"context"
	"slices"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// secrets are the keys of metadata that commonly tell who calls; grpc-gateway sends those of
// HTTP as the last two.
var secrets = []string{"authorization", "proxy-authorization", "cookie", "x-api-key", "grpcgateway-authorization", "grpcgateway-cookie"}

// caller returns the identity of a call's caller, and whether the call has to run alone
// because of it. proven says that the caller has shown who it is by other means than
// metadata.
func (s *settings) caller(ctx context.Context, md metadata.MD, proven bool) (identity string, alone bool) {
	if s.identity != nil {
		identity = s.identity(ctx)
	}
	if s.public || identity != "" {
		return identity, false
	}
	for _, secret := range secrets {
		if len(md.Get(secret)) > 0 && !slices.Contains(s.metadata, secret) {
			return "", true
		}
	}
	return "", proven
}

// provenPeer says whether the connection that a server has a call from shows whose it is.
func provenPeer(ctx context.Context) bool {
	p, ok := peer.FromContext(ctx)
	if !ok || p.AuthInfo == nil {
		return false
	}
	switch info := p.AuthInfo.(type) {
	case credentials.TLSInfo:
		return len(info.State.PeerCertificates) > 0
	default:
		return info.AuthType() != "insecure" && info.AuthType() != "local"
	}
}
