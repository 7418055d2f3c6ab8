package coalesce_test

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/fleetcall/fleetcall/coalesce"
)

func TestCodecNamesTravelWithStoredBytesAndStayWhatTheyAre(t *testing.T) {
	for got, want := range map[string]string{
		coalesce.JSON[product]().Name(): "json",
		coalesce.Gob[product]().Name():  "gob",
		coalesce.Raw[[]byte]().Name():   "raw",
	} {
		if got != want {
			t.Errorf("%s is named %q", want, got)
		}
	}
}

type product struct {
	ID          int32             `json:"id"`
	Name        string            `json:"name"`
	Price       float64           `json:"price"`
	Description *string           `json:"description"`
	Tags        []string          `json:"tags"`
	Labels      map[string]uint64 `json:"labels"`
	Image       []byte            `json:"image"`
}

func someProduct(t *rapid.T) product {
	return product{
		ID:          rapid.Int32().Draw(t, "id"),
		Name:        rapid.String().Draw(t, "name"),
		Price:       rapid.Float64Range(-math.MaxFloat64, math.MaxFloat64).Draw(t, "price"),
		Description: rapid.Ptr(rapid.String(), true).Draw(t, "description"),
		Tags:        rapid.SliceOf(rapid.String()).Draw(t, "tags"),
		Labels:      rapid.MapOf(rapid.String(), rapid.Uint64()).Draw(t, "labels"),
		Image:       rapid.SliceOf(rapid.Byte()).Draw(t, "image"),
	}
}

// carry is the way to another replica.
func carry[V any](codec coalesce.Codec[V], v V) (V, error) {
	data, err := codec.Marshal(v)
	if err != nil {
		var zero V
		return zero, err
	}
	return codec.Unmarshal(data)
}

func TestJSONGivesBackWhatItWasGiven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := someProduct(t)
		got, err := carry(coalesce.JSON[product](), want)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v, %v", got, want, err)
		}
		pointed, err := carry(coalesce.JSON[*product](), &want)
		if err != nil || !reflect.DeepEqual(*pointed, want) {
			t.Fatalf("got %+v by pointer, want %+v, %v", pointed, want, err)
		}
	})
	if got, err := carry(coalesce.JSON[*product](), nil); got != nil || err != nil {
		t.Errorf("a nil pointer became %v, %v", got, err)
	}
}

func TestJSONRefusesValuesThatItCannotCarry(t *testing.T) {
	if _, err := coalesce.JSON[float64]().Marshal(math.NaN()); err == nil {
		t.Error("marshalled NaN")
	}
	json := coalesce.JSON[product]()
	for _, half := range []string{`{"id": 1`, `{"id": "one"}`} {
		if p, err := json.Unmarshal([]byte(half)); err == nil || !reflect.DeepEqual(p, product{}) {
			t.Errorf("%s became %+v, %v", half, p, err)
		}
	}
}

type label struct{ text string }

func (l label) MarshalText() ([]byte, error)     { return []byte(l.text), nil }
func (l *label) UnmarshalText(text []byte) error { l.text = string(text); return nil }

// upper has its MarshalJSON on the pointer, where encoding/json does not find it
// in a value without an address.
type upper string

func (u *upper) MarshalJSON() ([]byte, error) {
	return []byte(strings.ToUpper(strconv.Quote(string(*u)))), nil
}
func (u *upper) UnmarshalJSON(data []byte) error {
	text, err := strconv.Unquote(string(data))
	*u = upper(strings.ToLower(text))
	return err
}

type texts struct {
	Text   string
	Quoted string `json:",string"`
	Keys   map[string]int
	Labels map[label]label
	Raw    json.RawMessage
	Bytes  []byte
	Upper  upper
	inner
}

type inner struct{ Inner []*string }

func TestJSONDoesNotReplaceTextThatIsNotUTF8(t *testing.T) {
	bad, good := "a\xffb", "a\ufffdb \\ufffd \"\\\\ufffd"
	for path, v := range map[string]texts{
		"texts.Text":           {Text: bad},
		"texts.Quoted":         {Quoted: bad},
		"texts.Keys[key]":      {Keys: map[string]int{bad: 1}},
		"texts.Labels[key]":    {Labels: map[label]label{{bad}: {}}},
		`texts.Labels["{ok}"]`: {Labels: map[label]label{{"ok"}: {bad}}},
		"texts.Inner[0]":       {inner: inner{[]*string{&bad}}},
	} {
		v.Text = v.Text + good
		if data, err := coalesce.JSON[texts]().Marshal(v); err == nil || !strings.Contains(err.Error(), path+":") {
			t.Errorf("%s: %q, %v", path, data, err)
		}
		if _, err := coalesce.JSON[*texts]().Marshal(&v); err == nil {
			t.Errorf("%s: marshalled by pointer", path)
		}
	}
	want := texts{good, good, map[string]int{good: 1}, map[label]label{{good}: {good}}, json.RawMessage(`"\ufffd"`), []byte(bad), "upper", inner{[]*string{&good, nil}}}
	got, err := carry(coalesce.JSON[texts](), want)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v became %+v, %v", want, got, err)
	}
	if _, err := coalesce.JSON[string]().Marshal(bad); err == nil || !strings.Contains(err.Error(), "string") {
		t.Errorf("a text: %v", err)
	}
}

func TestJSONCarriesEveryTextOrRefusesIt(t *testing.T) {
	codec := coalesce.JSON[map[string]string]()
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOf(rapid.SampledFrom([]byte{'f', 'd', 'u', '\\', '"', 0xc3, 0xa4, 0xff})).Draw(t, "text"))
		if rapid.Bool().Draw(t, "with a replacement character") {
			text += "\ufffd\\ufffd"
		}
		want := map[string]string{text: text}
		got, err := carry(codec, want)
		if valid := utf8.ValidString(text); (err == nil) != valid || valid && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q became %q, %v", want, got, err)
		}
	})
}

func TestGobGivesBackWhatItWasGiven(t *testing.T) {
	type carried struct {
		Text  string
		Value complex128
		Inf   float64
		Keys  map[[2]int]string
		Next  *carried
	}
	codec := coalesce.Gob[carried]()
	rapid.Check(t, func(t *rapid.T) {
		want := carried{
			Text:  string(rapid.SliceOf(rapid.Byte()).Draw(t, "text")),
			Value: complex(rapid.Float64().Draw(t, "real"), 1),
			Inf:   math.Inf(rapid.Int().Draw(t, "sign")),
			Keys:  map[[2]int]string{{1, rapid.Int().Draw(t, "key")}: "\xff"},
			Next:  &carried{Keys: map[[2]int]string{{}: ""}},
		}
		if got, err := carry(codec, want); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v, %v", got, want, err)
		}
	})
	if got, err := carry(coalesce.Gob[*carried](), nil); got != nil || err != nil {
		t.Errorf("a nil pointer became %v, %v", got, err)
	}
	if got, err := carry(coalesce.Gob[*carried](), &carried{}); err != nil || !reflect.DeepEqual(got, &carried{}) {
		t.Errorf("an empty struct became %v, %v", got, err)
	}
	if got, err := codec.Unmarshal([]byte("garbage")); err == nil || !reflect.DeepEqual(got, carried{}) {
		t.Errorf("garbage became %+v, %v", got, err)
	}
}

type blob []byte

func TestRawGivesBackTheSameBytesWithoutCopyingThem(t *testing.T) {
	raw := coalesce.Raw[blob]()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Byte(), 1, -1).Draw(t, "bytes")
		before := bytes.Clone(want)
		got, err := carry(raw, want)
		if err != nil || !bytes.Equal(got, before) {
			t.Fatalf("got %q, want %q, %v", got, before, err)
		}
		if &got[0] != &want[0] {
			t.Fatal("the bytes were copied")
		}
	})
	for _, empty := range []blob{nil, {}} {
		if got, err := carry(raw, empty); err != nil || len(got) != 0 {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

// BenchmarkJSON shows what looking for text that is not UTF-8 costs: compare with
// encoding/json itself.
func BenchmarkJSON(b *testing.B) {
	description := strings.Repeat("A lamp with a \"switch\" — and a shade.\n", 20)
	p := product{ID: 7, Name: "Lamp", Price: 9.5, Description: &description, Tags: []string{"a", "b"}, Labels: map[string]uint64{"c": 1}}
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(p); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("codec", func(b *testing.B) {
		codec := coalesce.JSON[product]()
		b.ReportAllocs()
		for b.Loop() {
			if _, err := codec.Marshal(p); err != nil {
				b.Fatal(err)
			}
		}
	})
}
