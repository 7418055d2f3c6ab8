package coalescegrpc

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// fingerprint is made of what decides how a message is read, and not of the
// descriptor's bytes: those have comments, options and an order that change without
// the message.
func fingerprint(message protoreflect.MessageDescriptor) uint64 {
	d := description{seen: map[protoreflect.FullName]bool{}}
	d.message(message)
	sum := sha256.Sum256([]byte(d.String()))
	return max(binary.BigEndian.Uint64(sum[:]), 1)
}

type description struct {
	strings.Builder
	seen map[protoreflect.FullName]bool
}

func (d *description) message(m protoreflect.MessageDescriptor) {
	fmt.Fprintf(d, "message %s", m.FullName())
	if d.seen[m.FullName()] {
		return
	}
	d.seen[m.FullName()] = true
	var fields []protoreflect.FieldDescriptor
	for i := range m.Fields().Len() {
		fields = append(fields, m.Fields().Get(i))
	}
	slices.SortFunc(fields, func(a, b protoreflect.FieldDescriptor) int { return cmp.Compare(a.Number(), b.Number()) })
	d.WriteString("{")
	for _, f := range fields {
		fmt.Fprintf(d, "%d %s %s %s presence:%t ", f.Number(), f.Name(), f.Cardinality(), f.Kind(), f.HasPresence())
		if oneof := f.ContainingOneof(); oneof != nil {
			fmt.Fprintf(d, "oneof:%s ", oneof.Name())
		}
		switch {
		case f.Message() != nil:
			d.message(f.Message())
		case f.Enum() != nil:
			d.enum(f.Enum())
		}
		d.WriteString(";")
	}
	d.WriteString("}")
}

func (d *description) enum(e protoreflect.EnumDescriptor) {
	fmt.Fprintf(d, "enum %s", e.FullName())
	if d.seen[e.FullName()] {
		return
	}
	d.seen[e.FullName()] = true
	d.WriteString("{")
	for i := range e.Values().Len() {
		fmt.Fprintf(d, "%d %s;", e.Values().Get(i).Number(), e.Values().Get(i).Name())
	}
	d.WriteString("}")
}
