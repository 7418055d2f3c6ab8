package coalescegrpc_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/fleetcall/fleetcall/coalesce/coalescegrpc"
)

func TestARepliesPartsArriveAsTheyWere(t *testing.T) {
	codec := coalescegrpc.Codec()
	for _, want := range []*coalescegrpc.Reply{
		coalescegrpc.NewReply(nil, nil, nil),
		coalescegrpc.NewReply([]byte("a message"), nil, nil),
		coalescegrpc.NewReply(nil, metadata.Pairs("a", "1", "b", "", "a", "2"), metadata.Pairs("c-bin", "\x00\xff")),
	} {
		data, err := codec.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := codec.Unmarshal(data)
		if err != nil || !same(got, want) {
			t.Errorf("%+v became %+v, %v", want, got, err)
		}
	}
	if _, err := codec.Marshal(nil); err == nil {
		t.Error("marshalled nil")
	}
	if codec.Name() != "grpc-reply-1" {
		t.Errorf("the codec is %s: replicas of another version do not share with it", codec.Name())
	}
}

func same(a, b *coalescegrpc.Reply) bool {
	am, ah, at := a.Parts()
	bm, bh, bt := b.Parts()
	equal := func(a, b metadata.MD) bool { return maps.EqualFunc(a, b, slices.Equal[[]string]) }
	return bytes.Equal(am, bm) && equal(ah, bh) && equal(at, bt)
}

// FuzzReply reads bytes from another replica, or from whoever else can write to its Redis.
func FuzzReply(f *testing.F) {
	codec := coalescegrpc.Codec()
	for _, r := range []*coalescegrpc.Reply{
		coalescegrpc.NewReply(nil, nil, nil),
		coalescegrpc.NewReply([]byte("m"), metadata.Pairs("a", "1", "a", ""), metadata.Pairs("", "")),
	} {
		data, err := codec.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("\x0a\xff\xff\xff\xff\x0f"))
	f.Add([]byte("\x12\x02\x0a\x05"))
	f.Add([]byte("\x08\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := codec.Unmarshal(data)
		if err != nil {
			return
		}
		again, err := codec.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := codec.Unmarshal(again); err != nil || !same(back, r) {
			t.Fatalf("%q became %+v, and that %+v, %v", data, r, back, err)
		}
	})
}

// FuzzKey cuts text into the parts of two calls in two ways: they have one key only when
// all that matters is the same.
func FuzzKey(f *testing.F) {
	f.Add("abcdefgh", "abcdefgh", uint64(0x0101), uint64(0x1001))
	f.Add("aaaaaaaa", "aaaaaaaa", uint64(0x1111), uint64(0x1111))
	f.Add("\x01a\x01a", "\x01a\x01a", uint64(0x0002), uint64(0x0020))
	f.Fuzz(func(t *testing.T, a, b string, cutA, cutB uint64) {
		x, y := subjectOf(a, cutA), subjectOf(b, cutB)
		if got, want := x.Key("lang", "rights") == y.Key("lang", "rights"), matters(x) == matters(y); got != want {
			t.Fatalf("one key: %t, the same: %t, for\n%+v\n%+v", got, want, x, y)
		}
	})
}

// subjectOf cuts text into parts whose lengths are the digits of cut.
func subjectOf(text string, cut uint64) coalescegrpc.Subject {
	next := func() string {
		n := min(int(cut%16), len(text))
		part := text[:n]
		text, cut = text[n:], cut/16
		return part
	}
	s := coalescegrpc.Subject{Method: "/s/" + next(), Identity: next(), Target: next(), Authority: next(), Metadata: metadata.MD{}}
	for range int(cut % 4) {
		s.Metadata.Append("lang", next())
	}
	for range int(cut % 4) {
		s.Metadata.Append("rights", next())
	}
	s.Metadata.Append("trace", next()) // is not named
	s.Request = []byte(text)
	return s
}

// matters is what tells two calls apart, in the way that fmt quotes it.
func matters(s coalescegrpc.Subject) string {
	return fmt.Sprintf("%q %q %q %q %q %q %q", s.Method, s.Identity, s.Target, s.Authority, s.Request, s.Metadata["lang"], s.Metadata["rights"])
}

func TestTwoVersionsOfAMessageHaveTwoKeys(t *testing.T) {
	old := coalescegrpc.Subject{Method: "/s/m", In: 1, Out: 2}
	for name, changed := range map[string]coalescegrpc.Subject{
		"request": {Method: "/s/m", In: 3, Out: 2},
		"reply":   {Method: "/s/m", In: 1, Out: 3},
		"both":    {Method: "/s/m", In: 2, Out: 1},
	} {
		if changed.Key() == old.Key() {
			t.Errorf("a change of the %s changes no key", name)
		}
	}
}

// Replicas of two builds share only what has the same key: it does not change.
func TestKeysStayWhatTheyAre(t *testing.T) {
	s := coalescegrpc.Subject{Method: "/shop.Products/Get", In: 1, Out: 2, Request: []byte("7"), Identity: "acme", Target: "dns:///shop", Metadata: metadata.Pairs("lang", "de")}
	if got, want := s.Key("lang"), "/shop.Products/Get:I_Z7WJzi9n8C6OXYgOlYOpIe9JoNYRihHM4V-3WshBY"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if s.Key("lang", "LANG") != s.Key("lang") {
		t.Error("a name that is given twice counts twice")
	}
}
