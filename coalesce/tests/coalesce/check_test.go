package coalesce_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

func check[V any](codec coalesce.Codec[V]) error { return codec.(coalesce.Checker).Check() }

type (
	tree struct {
		Left, Right *tree
		Children    map[string][]tree
	}

	textOnly struct{ A int }
	jsonOnly struct{ A int }
	readOnly struct{ A int }
	twice    struct {
		A int `json:"B"`
		B int
	}
	shadowing struct {
		shadowed
		ID int
	}
	shadowed struct{ ID int }
	self     struct {
		*self
		A int
	}
	stamped struct {
		time.Time
		Note string
	}
	stampedOwn  stampedBase
	stampedBase struct {
		time.Time
		Note string
	}
	justTime  struct{ time.Time }
	onPointer struct{ a int }
)

func (textOnly) MarshalText() ([]byte, error)   { return nil, nil }
func (jsonOnly) MarshalJSON() ([]byte, error)   { return nil, nil }
func (*readOnly) UnmarshalJSON([]byte) error    { return nil }
func (stampedOwn) MarshalJSON() ([]byte, error) { return nil, nil }
func (*stampedOwn) UnmarshalJSON([]byte) error  { return nil }
func (*onPointer) MarshalJSON() ([]byte, error) { return nil, nil }
func (o *onPointer) UnmarshalJSON([]byte) error { o.a++; return nil }

func TestJSONAcceptsWhatItCarries(t *testing.T) {
	for _, err := range []error{
		check(coalesce.JSON[string]()),
		check(coalesce.JSON[[]byte]()),
		check(coalesce.JSON[product]()),
		check(coalesce.JSON[*tree]()),
		check(coalesce.JSON[map[string][]*product]()),
		check(coalesce.JSON[struct{}]()),
		check(coalesce.JSON[stampedOwn]()),
		check(coalesce.JSON[justTime]()),
		check(coalesce.JSON[onPointer]()),
		check(coalesce.JSON[map[string]*onPointer]()),
		check(coalesce.JSON[map[string][]onPointer]()),
		check(coalesce.JSON[struct{ ordinary }]()),
		check(coalesce.JSON[ordinary]()),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}

type ordinary struct {
	product
	Created time.Time
	Deleted *time.Time                 `json:"deleted,omitempty"`
	Balance *big.Int                   `json:"balance"`
	Headers http.Header                `json:",omitempty"`
	Prices  map[label]map[int]*big.Rat `json:"prices"`
	Address netip.Addr                 `json:"address,omitzero"`
	Raw     json.RawMessage
	Grid    [3][3]float32
	Dash    *[]string `json:"dash,omitempty"`
	Tree    tree
	_       struct{}
	_       [0]func()
}

func TestJSONRefusesWhatItWouldChangeAndNamesIt(t *testing.T) {
	_ = self{}.self
	for _, refused := range []struct {
		err  error
		want string
	}{
		{check(coalesce.JSON[any]()), "any as it is: it is an interface"},
		{check(coalesce.JSON[error]()), "error as it is: it is an interface"},
		{check(coalesce.JSON[map[string]any]()), "map[string]any[] as it is: it is an interface"},
		{check(coalesce.JSON[struct{ Err error }]()), ".Err as it is: it is an interface"},
		{check(coalesce.JSON[[]*struct{ A []map[string]struct{ b int } }]()), ".A[][].b as it is: it is not exported"},
		{check(coalesce.JSON[struct {
			A int `json:"-"`
		}]()), `.A as it is: it has the tag json:"-"`},
		{check(coalesce.JSON[chan int]()), "it is a chan"},
		{check(coalesce.JSON[func()]()), "it is a func"},
		{check(coalesce.JSON[[2]complex64]()), "it is a complex64"},
		{check(coalesce.JSON[map[float64]int]()), "no map keys of type float64"},
		{check(coalesce.JSON[map[[2]int]int]()), "no map keys of type [2]int"},
		{check(coalesce.JSON[map[textOnly]int]()), "MarshalText without UnmarshalText"},
		{check(coalesce.JSON[textOnly]()), "MarshalText without UnmarshalText"},
		{check(coalesce.JSON[jsonOnly]()), "MarshalJSON without UnmarshalJSON"},
		{check(coalesce.JSON[readOnly]()), "UnmarshalJSON without MarshalJSON"},
		{check(coalesce.JSON[twice]()), `twice.B as it is: JSON knows it by the name "B", and coalesce_test.twice.A too`},
		{check(coalesce.JSON[shadowing]()), `shadowing.ID as it is: JSON knows it by the name "ID", and coalesce_test.shadowing.shadowed.ID too`},
		{check(coalesce.JSON[self]()), "embedded pointer to a struct that is not exported"},
		{check(coalesce.JSON[stamped]()), "MarshalJSON is that of its embedded Time"},
		{check(coalesce.JSON[map[string]onPointer]()), "let the map hold pointers"},
		{check(coalesce.JSON[map[string]struct{ A [1]onPointer }]()), "[].A[] as it is"},
		{check(coalesce.JSON[struct {
			sync.Mutex
			A int
		}]()), ".Mutex."},
		{check(coalesce.JSON[url.URL]()), "url.URL.User.username as it is: it is not exported"},
	} {
		if refused.err == nil || !strings.Contains(refused.err.Error(), refused.want) {
			t.Errorf("%v, want %q in it", refused.err, refused.want)
			continue
		}
		for _, way := range []string{"JSON would not carry ", "MarshalJSON and UnmarshalJSON", "another codec", "AllowLossy"} {
			if !strings.Contains(refused.err.Error(), way) {
				t.Errorf("%v, want %q in it", refused.err, way)
			}
		}
	}
}

// What Check accepts comes back equal, and what it refuses would not.
func TestWhatJSONRefusesReallyChanges(t *testing.T) {
	carried := func(v any, into any) string {
		data, err := json.Marshal(v)
		if err != nil {
			return err.Error()
		}
		if err := json.Unmarshal(data, into); err != nil {
			return err.Error()
		}
		return fmt.Sprintf("%+v", into)
	}
	if got := carried(stamped{time.Unix(0, 0), "note"}, new(stamped)); strings.Contains(got, "note") {
		t.Errorf("the other fields beside an embedded time are carried: %s", got)
	}
	if got := carried(twice{1, 2}, new(twice)); got != "&{A:1 B:0}" {
		t.Errorf("fields of one name are carried: %s", got)
	}
	if got := carried(shadowing{shadowed{1}, 2}, new(shadowing)); got != "&{shadowed:{ID:0} ID:2}" {
		t.Errorf("a shadowed field is carried: %s", got)
	}
}

func TestGobChecksWhatItDrops(t *testing.T) {
	type plain struct {
		A    complex64
		B    map[[2]int]*leaf
		Time time.Time
		Next *plain
	}
	for _, err := range []error{
		check(coalesce.Gob[plain]()),
		check(coalesce.Gob[[]string]()),
		check(coalesce.Gob[*int]()),
		check(coalesce.Gob[url.URL]()),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	for _, refused := range []struct {
		err  error
		want string
	}{
		{check(coalesce.Gob[struct{ A, b int }]()), ".b as it is: it is not exported"},
		{check(coalesce.Gob[struct{ A chan int }]()), ".A as it is: it is a chan"},
		{check(coalesce.Gob[[]func()]()), "it is a func"},
		{check(coalesce.Gob[any]()), "gob.Register"},
		{check(coalesce.Gob[product]()), "product.Description as it is: gob leaves out zero values"},
		{check(coalesce.Gob[struct{ At *time.Time }]()), ".At as it is: gob leaves out zero values"},
		{check(coalesce.Gob[struct{}]()), "without exported fields"},
		{check(coalesce.Gob[stamped]()), "GobEncode is that of its embedded Time"},
	} {
		if refused.err == nil || !strings.Contains(refused.err.Error(), refused.want) || !strings.Contains(refused.err.Error(), "AllowLossy") {
			t.Errorf("%v, want %q in it", refused.err, refused.want)
		}
	}
	zero := 0
	if got, err := carry(coalesce.Gob[struct{ A *int }](), struct{ A *int }{&zero}); err != nil || got.A != nil {
		t.Errorf("a pointer to zero is carried: %v, %v", got, err)
	}
}

type leaf struct{ Left, Right *leaf }
