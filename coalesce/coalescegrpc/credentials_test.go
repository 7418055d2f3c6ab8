package coalescegrpc_test

import (
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/fleetcall/fleetcall/coalesce/coalescegrpc"
)

func TestACallWithASecretInItsMetadataIsAloneUnlessThatIsNamed(t *testing.T) {
	for _, key := range []string{"authorization", "x-api-key", "grpcgateway-cookie", "private-token", "x-auth-request-email", "x_session_id", "access-token-bin"} {
		if !coalescegrpc.MustBeAlone(metadata.Pairs(key, "a")) {
			t.Errorf("%s is merged with others", key)
		}
		if coalescegrpc.MustBeAlone(metadata.Pairs(key, "a"), key) {
			t.Errorf("%s is alone though it is part of what makes calls the same", key)
		}
	}
	for _, key := range []string{":authority", "user-agent", "content-type", "grpc-accept-encoding", "traceparent", "x-request-id", "accept-language"} {
		if coalescegrpc.MustBeAlone(metadata.Pairs(key, "a")) {
			t.Errorf("%s is alone", key)
		}
	}
}
