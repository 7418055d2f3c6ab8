package coalescegrpc_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescegrpc"
)

func carry[M proto.Message](t *testing.T, want M) M {
	t.Helper()
	codec := coalescegrpc.Proto[M]()
	if err := codec.(coalesce.Checker).Check(); err != nil || codec.Name() != "proto" {
		t.Fatalf("%s: %v", codec.Name(), err)
	}
	data, err := codec.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := codec.Unmarshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestMessagesArriveAsTheyWere(t *testing.T) {
	value, err := structpb.NewStruct(map[string]any{"name": "Keyboard", "prices": []any{1.5, nil, true}})
	if err != nil {
		t.Fatal(err)
	}
	if got := carry(t, value); !proto.Equal(got, value) || got == value {
		t.Errorf("%v became %v", value, got)
	}
	unknown := &timestamppb.Timestamp{Seconds: 7}
	unknown.ProtoReflect().SetUnknown([]byte("\xf8\x01\x05"))
	if got := carry(t, unknown); !proto.Equal(got, unknown) || len(got.ProtoReflect().GetUnknown()) != 3 {
		t.Errorf("%v became %v", unknown, got)
	}
}

func TestAnEmptyMessageIsNotNil(t *testing.T) {
	if got := carry(t, &timestamppb.Timestamp{}); got == nil {
		t.Error("an empty message became nil")
	}
	if got := carry[*timestamppb.Timestamp](t, nil); got != nil {
		t.Errorf("nil became %v", got)
	}
}

func TestWhatCannotTravelIsAnError(t *testing.T) {
	if _, err := coalescegrpc.Proto[*wrapperspb.StringValue]().Marshal(wrapperspb.String("a\xffb")); err == nil {
		t.Error("marshalled text that is not UTF-8")
	}
	for _, garbage := range []string{"\x00\x00", "\xff", "\x0a\x05abc"} {
		if got, err := coalescegrpc.Proto[*wrapperspb.StringValue]().Unmarshal([]byte(garbage)); err == nil || got != nil {
			t.Errorf("%q became %v, %v", garbage, got, err)
		}
	}
}

func TestOnlyGeneratedMessagesAreAccepted(t *testing.T) {
	codec := coalescegrpc.Proto[proto.Message]()
	if err := codec.(coalesce.Checker).Check(); err == nil || !strings.Contains(err.Error(), "not protoreflect.ProtoMessage") {
		t.Errorf("the interface: %v", err)
	}
	if _, err := codec.Marshal(&timestamppb.Timestamp{}); err == nil {
		t.Error("marshalled by it")
	}
	if _, err := codec.Unmarshal(nil); err == nil {
		t.Error("unmarshalled by it")
	}
	if err := coalescegrpc.Proto[*dynamicpb.Message]().(coalesce.Checker).Check(); err == nil {
		t.Error("a message without a type is accepted")
	}
}

func fingerprint[M proto.Message]() uint64 {
	return coalescegrpc.Proto[M]().(coalesce.Fingerprinter).Fingerprint()
}

func TestMessagesHaveFingerprintsOfTheirOwn(t *testing.T) {
	// These numbers are on the wire, and do not change.
	for name, f := range map[string]struct{ got, want uint64 }{
		"Timestamp": {fingerprint[*timestamppb.Timestamp](), 0x796820d820ddf90c},
		"Duration":  {fingerprint[*durationpb.Duration](), 0x6bd79480e2925697},
		"Struct":    {fingerprint[*structpb.Struct](), 0x0422a2683e10a754}, // recursive
	} {
		if f.got != f.want {
			t.Errorf("%s has %#016x, want %#016x", name, f.got, f.want)
		}
	}
}

// file makes a message shop.Product of a part of its description.
func file(t *testing.T, change func(*descriptorpb.DescriptorProto)) protoreflect.MessageDescriptor {
	t.Helper()
	optional, text := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL, descriptorpb.FieldDescriptorProto_TYPE_STRING
	product := &descriptorpb.DescriptorProto{
		Name: proto.String("Product"),
		Field: []*descriptorpb.FieldDescriptorProto{
			{Name: proto.String("name"), Number: proto.Int32(1), Label: &optional, Type: &text},
			{Name: proto.String("note"), Number: proto.Int32(2), Label: &optional, Type: &text},
		},
	}
	change(product)
	made, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("shop.proto"), Package: proto.String("shop"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{product},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return made.Messages().Get(0)
}

func TestAChangedMessageHasAnotherFingerprint(t *testing.T) {
	of := coalescegrpc.FingerprintOf
	same := of(file(t, func(*descriptorpb.DescriptorProto) {}))
	if of(file(t, func(p *descriptorpb.DescriptorProto) { p.Field[0], p.Field[1] = p.Field[1], p.Field[0] })) != same {
		t.Error("the order of the fields in the file counts")
	}
	repeated, number := descriptorpb.FieldDescriptorProto_LABEL_REPEATED, descriptorpb.FieldDescriptorProto_TYPE_INT64
	seen := map[uint64]string{same: "none"}
	for what, change := range map[string]func(*descriptorpb.DescriptorProto){
		"another name":    func(p *descriptorpb.DescriptorProto) { p.Name = proto.String("Article") },
		"a field less":    func(p *descriptorpb.DescriptorProto) { p.Field = p.Field[:1] },
		"a field renamed": func(p *descriptorpb.DescriptorProto) { p.Field[1].Name = proto.String("remark") },
		"another number":  func(p *descriptorpb.DescriptorProto) { p.Field[1].Number = proto.Int32(3) },
		"another type":    func(p *descriptorpb.DescriptorProto) { p.Field[1].Type = &number },
		"a list":          func(p *descriptorpb.DescriptorProto) { p.Field[1].Label = &repeated },
	} {
		got := of(file(t, change))
		if other, taken := seen[got]; taken {
			t.Errorf("the change %q gives the same as %q", what, other)
		}
		seen[got] = what
	}
}

func BenchmarkProto(b *testing.B) {
	codec := coalescegrpc.Proto[*timestamppb.Timestamp]()
	m := &timestamppb.Timestamp{Seconds: 1_700_000_000, Nanos: 5}
	b.ReportAllocs()
	for b.Loop() {
		data, err := codec.Marshal(m)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := codec.Unmarshal(data); err != nil {
			b.Fatal(err)
		}
	}
}
