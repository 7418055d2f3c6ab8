package coalescegrpc

import (
	"errors"
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/fleetcall/fleetcall/coalesce"
)

// Proto returns a codec for a Group whose results are protobuf messages:
//
//	codec := coalescegrpc.Proto[*shop.Product]()
//	products, err := distributed.NewGroup[*shop.Product](fleet, "products", distributed.WithCodec(codec))
//
// It is named "proto", and carries messages in their own format. M is a pointer to a generated message, such as *shop.Product. Fields that
// are not known here, and a nil pointer, arrive as they were sent.
//
// Its fingerprint is that of the message's full name and of its fields, and of
// theirs, so that replicas share results among those that know the same fields: a
// field that is added in a rolling upgrade never arrives as missing.
//
// Its Check refuses an M that is no generated message, such as the interface
// proto.Message.
func Proto[M proto.Message]() coalesce.Codec[M] {
	var zero M
	c := protoCodec[M]{t: typeOf(zero)}
	if c.t != nil {
		c.fingerprint = fingerprint(c.t.Descriptor())
	}
	return c
}

// typeOf returns nil for a message that cannot tell its type while it is nil.
func typeOf(zero proto.Message) (t protoreflect.MessageType) {
	if zero == nil {
		return nil
	}
	defer func() {
		if recover() != nil {
			t = nil
		}
	}()
	return zero.ProtoReflect().Type()
}

type protoCodec[M proto.Message] struct {
	t           protoreflect.MessageType
	fingerprint uint64
}

// nilMessage stands for a nil pointer. No message has these bytes: a field's number
// is never 0.
const nilMessage = "\x00"

var errType = errors.New("fleetcall: coalescegrpc.Proto needs the pointer to a generated message, such as *shop.Product")

func (c protoCodec[M]) Name() string { return "proto" }

// Check makes protoCodec a coalesce.Checker.
func (c protoCodec[M]) Check() error {
	if c.t == nil {
		return fmt.Errorf("%w, not %s", errType, reflect.TypeFor[M]())
	}
	return nil
}

// Fingerprint makes protoCodec a coalesce.Fingerprinter.
func (c protoCodec[M]) Fingerprint() uint64 { return max(c.fingerprint, 1) }

func (c protoCodec[M]) Marshal(m M) ([]byte, error) {
	if c.t == nil {
		return nil, c.Check()
	}
	if !m.ProtoReflect().IsValid() {
		return []byte(nilMessage), nil
	}
	return proto.Marshal(m)
}

func (c protoCodec[M]) Unmarshal(data []byte) (M, error) {
	var zero M
	if c.t == nil {
		return zero, c.Check()
	}
	if string(data) == nilMessage {
		return zero, nil
	}
	m := c.t.New().Interface().(M)
	if err := proto.Unmarshal(data, m); err != nil {
		return zero, err
	}
	return m, nil
}
