package wire_test

import (
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

type Order struct {
	ID    int64 `json:"id"`
	Lines []OrderLine
	Page  Page[map[string]OrderLine]
}

type OrderLine struct {
	Product string
	Parent  *Order
}

type Page[T any] struct{ Items []T }

type (
	user    struct{ ID int64 }
	celsius float64
	// guarded has what Go versions differ in.
	guarded struct {
		sync.Mutex
		ID int64
		At atomic.Pointer[user]
	}
	event struct {
		At time.Time
		E  any
	}
)

// These numbers are on the wire: whoever changes one splits a fleet in two for the
// time of an upgrade.
func TestFingerprintsStayWhatTheyAre(t *testing.T) {
	for _, golden := range []struct {
		t    reflect.Type
		want uint64
	}{
		{reflect.TypeFor[string](), 0xd04985f48687a0ce},
		{reflect.TypeFor[int](), 0x6d8e02daceaa0abb},
		{reflect.TypeFor[[]byte](), 0x517da9e1420833aa},
		{reflect.TypeFor[any](), 0xc796d37c6d491e8f},
		{reflect.TypeFor[user](), 0x72aa3c068a70b11e},
		{reflect.TypeFor[Order](), 0x0eaded253a8cbd97},
		{reflect.TypeFor[guarded](), 0xf8cf900dc907631d},
		{reflect.TypeFor[event](), 0x1b5bfa1d3c4a682f},
		{reflect.TypeFor[map[celsius][3]*user](), 0xbc0caeefe6b7c59b},
		{reflect.TypeFor[Page[Page[user]]](), 0x8c88a59f1196eb9e},
	} {
		if got := wire.Fingerprint(golden.t); got != golden.want {
			t.Errorf("%s has %#016x, want %#016x", golden.t, got, golden.want)
		}
	}
	if wire.Fingerprint(nil) == 0 {
		t.Error("no type has the fingerprint 0")
	}
}

func TestATypeThatMovesToAnotherPackageKeepsItsFingerprint(t *testing.T) {
	if wire.Fingerprint(wire.OrderType) != wire.Fingerprint(reflect.TypeFor[Order]()) {
		t.Errorf("%s and %s differ", wire.OrderType, reflect.TypeFor[Order]())
	}
}

// A recursive type that appears twice, whole and behind a field that is not
// exported.
type seenHidden struct {
	hidden node
	Shown  node
}
type node struct {
	A    int
	Next *node
}

func TestTypesThatDifferHaveDifferentFingerprints(t *testing.T) {
	seen := map[uint64]reflect.Type{}
	for _, of := range append(typesThatDiffer(), sameNames()...) {
		got := wire.Fingerprint(of)
		if other, taken := seen[got]; taken {
			t.Errorf("%s and %s have the same", of, other)
		}
		seen[got] = of
	}
}

type (
	part  struct{ A int }
	whole struct{ A, B int }
)

func typesThatDiffer() []reflect.Type {
	return []reflect.Type{
		reflect.TypeFor[struct{}](),
		reflect.TypeFor[struct{ A int }](),
		reflect.TypeFor[struct{ a int }](),
		reflect.TypeFor[*struct{ A int }](),
		reflect.TypeFor[[]struct{ A int }](),
		reflect.TypeFor[[1]struct{ A int }](),
		reflect.TypeFor[[2]struct{ A int }](),
		reflect.TypeFor[map[string]struct{ A int }](),
		reflect.TypeFor[map[int]struct{ A int }](),
		reflect.TypeFor[struct{ A int32 }](),
		reflect.TypeFor[struct{ A *int }](),
		reflect.TypeFor[struct{ B int }](),
		reflect.TypeFor[struct {
			A int `json:"a"`
		}](),
		reflect.TypeFor[struct {
			A int `json:"a,omitempty"`
		}](),
		reflect.TypeFor[struct {
			A int `bson:"a"`
		}](),
		reflect.TypeFor[struct{ A, B int }](),
		reflect.TypeFor[struct{ B, A int }](),
		reflect.TypeFor[struct{ A []struct{ B int } }](),
		reflect.TypeFor[struct{ A []struct{ B uint } }](),
		reflect.TypeFor[struct{ part }](),
		reflect.TypeFor[struct{ part part }](),
		reflect.TypeFor[struct{ Part part }](),
		reflect.TypeFor[part](),
		reflect.TypeFor[whole](),
		reflect.TypeFor[float64](),
		reflect.TypeFor[celsius](),
		reflect.TypeFor[time.Time](),
		reflect.TypeFor[time.Duration](),
		reflect.TypeFor[Page[user]](),
		reflect.TypeFor[Page[part]](),
		reflect.TypeFor[node](),
		reflect.TypeFor[seenHidden](),
	}
}

// sameNames are types of the same names, which differ in a type that is embedded.
func sameNames() []reflect.Type {
	first := func() reflect.Type {
		type hiding struct{ P part }
		type row struct{ hiding }
		_ = row{}.hiding
		return reflect.TypeFor[row]()
	}
	second := func() reflect.Type {
		type hiding struct{ P whole }
		type row struct{ hiding }
		_ = row{}.hiding
		return reflect.TypeFor[row]()
	}
	return []reflect.Type{first(), second()}
}

func TestWhatAFieldThatIsNotExportedHasInItDoesNotCount(t *testing.T) {
	first := func() reflect.Type {
		type part struct{ A int }
		type row struct{ p part }
		_ = row{}.p
		return reflect.TypeFor[row]()
	}
	second := func() reflect.Type {
		type part struct{ A, B string }
		type row struct{ p part }
		_ = row{}.p
		return reflect.TypeFor[row]()
	}
	if wire.Fingerprint(first()) != wire.Fingerprint(second()) {
		t.Error("they differ")
	}
	// The same type whole afterwards is whole.
	third := func() reflect.Type {
		type node struct {
			B    int
			Next *node
		}
		type seenHidden struct {
			hidden node
			Shown  node
		}
		_ = seenHidden{}.hidden
		return reflect.TypeFor[seenHidden]()
	}
	_ = seenHidden{}.hidden
	if wire.Fingerprint(third()) == wire.Fingerprint(reflect.TypeFor[seenHidden]()) {
		t.Error("what was seen behind a field that is not exported is not looked at again")
	}
}

type Text struct{ A int }

func (Text) MarshalText() ([]byte, error) { return nil, nil }
func (*Text) UnmarshalText([]byte) error  { return nil }

func TestOfATypeThatWritesItselfOnlyTheNameCounts(t *testing.T) {
	if wire.Fingerprint(wire.TextType) != wire.Fingerprint(reflect.TypeFor[Text]()) {
		t.Error("its fields count")
	}
}
