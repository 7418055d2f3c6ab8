package coalescegrpc

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// deterministic writes equal requests as equal bytes. A field that is required and missing
// is the server's to complain of.
var deterministic = proto.MarshalOptions{Deterministic: true, AllowPartial: true}

// subject is what makes two calls the same.
type subject struct {
	method            *method
	request           []byte
	metadata          metadata.MD // of the call
	identity          string
	target, authority string // of clients
}

// key returns the same key for two subjects that are the same, and no other: each part has
// its length before it, and what they hash to stands behind the method's name. So a key is
// short, and neither requests nor tokens can be read in it.
func (s *settings) key(of subject) string {
	buf := make([]byte, 0, 256+len(of.request))
	buf = binary.BigEndian.AppendUint64(buf, of.method.request)
	buf = binary.BigEndian.AppendUint64(buf, of.method.reply)
	part := func(text string) {
		buf = binary.AppendUvarint(buf, uint64(len(text)))
		buf = append(buf, text...)
	}
	part(string(of.request))
	part(of.identity)
	part(of.target)
	part(of.authority)
	for _, key := range s.metadata {
		values := of.metadata.Get(key)
		part(key)
		buf = binary.AppendUvarint(buf, uint64(len(values)))
		for _, value := range values {
			part(value)
		}
	}
	sum := sha256.Sum256(buf)
	return of.method.name + ":" + base64.RawURLEncoding.EncodeToString(sum[:])
}
