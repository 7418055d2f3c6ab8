package coalescegrpc

import (
	"errors"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/fleetcall/fleetcall/coalesce"
)

// Group is the tier that carries replies: local.Tier, a distributed.Group with Codec, or
// coalesce.Off. Interceptors may share one.
type Group = coalesce.Group[*Reply]

// Reply is what travels to those who share a call: its message and its metadata.
type Reply struct {
	message         []byte
	header, trailer metadata.MD
	status          []byte // of an error, instead of the message
}

// Codec returns the codec of a Group of replies.
func Codec() coalesce.Codec[*Reply] { return replyCodec{} }

type replyCodec struct{}

// Name changes when the bytes do.
func (replyCodec) Name() string { return "grpc-reply-1" }

// Fingerprint makes replyCodec a coalesce.Fingerprinter. What a message's bytes mean is
// part of the key.
func (replyCodec) Fingerprint() uint64 { return 1 }

// The fields of a Reply as a protobuf message. A pair of metadata is a message of a key and
// a value; a key with several values has several pairs, in their order.
const (
	messageField protowire.Number = iota + 1
	headerField
	trailerField
	statusField

	keyField   protowire.Number = 1
	valueField protowire.Number = 2
)

// Marshal makes replyCodec a coalesce.Codec.
func (replyCodec) Marshal(r *Reply) ([]byte, error) {
	if r == nil {
		return nil, errors.New("fleetcall: coalescegrpc: a Reply is nil")
	}
	b := make([]byte, 0, len(r.message)+len(r.status)+16)
	b = appendBytes(b, messageField, r.message)
	b = appendBytes(b, statusField, r.status)
	b = appendMetadata(b, headerField, r.header)
	return appendMetadata(b, trailerField, r.trailer), nil
}

func appendBytes[T ~[]byte | ~string](b []byte, field protowire.Number, value T) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(value)))
	return append(b, value...)
}

func appendMetadata(b []byte, field protowire.Number, md metadata.MD) []byte {
	for key, values := range md {
		for _, value := range values {
			b = appendBytes(b, field, appendBytes(appendBytes(nil, keyField, key), valueField, value))
		}
	}
	return b
}

// Unmarshal makes replyCodec a coalesce.Codec. The message is not copied.
func (replyCodec) Unmarshal(data []byte) (*Reply, error) {
	r := new(Reply)
	err := fields(data, func(field protowire.Number, value []byte) error {
		switch field {
		case messageField:
			r.message = value
		case headerField:
			return addPair(&r.header, value)
		case trailerField:
			return addPair(&r.trailer, value)
		case statusField:
			r.status = value
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

var errGarbage = errors.New("fleetcall: coalescegrpc: these bytes are no Reply")

// fields calls each for every field of a message, all of which are bytes.
func fields(data []byte, each func(protowire.Number, []byte) error) error {
	for len(data) > 0 {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 || kind != protowire.BytesType {
			return errGarbage
		}
		value, m := protowire.ConsumeBytes(data[n:])
		if m < 0 {
			return errGarbage
		}
		if err := each(field, value); err != nil {
			return err
		}
		data = data[n+m:]
	}
	return nil
}

func addPair(md *metadata.MD, pair []byte) error {
	var key, value string
	err := fields(pair, func(field protowire.Number, text []byte) error {
		switch field {
		case keyField:
			key = string(text)
		case valueField:
			value = string(text)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if *md == nil {
		*md = metadata.MD{}
	}
	(*md)[key] = append((*md)[key], value)
	return nil
}

// copyOf returns metadata that its receiver may change.
func copyOf(md metadata.MD) metadata.MD {
	if md == nil {
		return nil
	}
	return md.Copy()
}
