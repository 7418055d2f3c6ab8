package coalescegrpc

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// secrets are words in the keys of metadata that prove who calls: authorization,
// x-api-key, grpcgateway-cookie, private-token-bin. Each service has names of its own.
var secrets = []string{
	"apikey", "auth", "authentication", "authorization", "cookie", "credential", "credentials", "jwt", "key", "password",
	"secret", "session", "signature", "token",
}

// isSecret says whether the value of a key of metadata proves who calls.
func isSecret(key string) bool {
	for word := range strings.FieldsFuncSeq(key, func(r rune) bool { return r == '-' || r == '_' || r == '.' }) {
		if slices.Contains(secrets, word) {
			return true
		}
	}
	return false
}

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
	for key, values := range md {
		if key = strings.ToLower(key); len(values) > 0 && isSecret(key) && !slices.Contains(s.metadata, key) {
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
