package coalesce_test

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fleetcall/fleetcall/coalesce"
)

func TestCodecNamesTravelWithStoredBytesAndStayWhatTheyAre(t *testing.T) {
	if got := coalesce.JSON.Name(); got != "json" {
		t.Errorf("JSON is named %q", got)
	}
	if got := coalesce.Raw.Name(); got != "raw" {
		t.Errorf("Raw is named %q", got)
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

func TestJSONGivesBackWhatItWasGiven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := product{
			ID:          rapid.Int32().Draw(t, "id"),
			Name:        rapid.String().Draw(t, "name"),
			Price:       rapid.Float64Range(-math.MaxFloat64, math.MaxFloat64).Draw(t, "price"),
			Description: rapid.Ptr(rapid.String(), true).Draw(t, "description"),
			Tags:        rapid.SliceOf(rapid.String()).Draw(t, "tags"),
			Labels:      rapid.MapOf(rapid.String(), rapid.Uint64()).Draw(t, "labels"),
			Image:       rapid.SliceOf(rapid.Byte()).Draw(t, "image"),
		}
		data, err := coalesce.JSON.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got product
		if err := coalesce.JSON.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}

func TestJSONRefusesWhatJSONCannotCarry(t *testing.T) {
	if _, err := coalesce.JSON.Marshal(make(chan int)); err == nil {
		t.Error("marshalled a channel")
	}
	if _, err := coalesce.JSON.Marshal(math.NaN()); err == nil {
		t.Error("marshalled NaN")
	}
	var p product
	if err := coalesce.JSON.Unmarshal([]byte(`{"id": 1`), &p); err == nil {
		t.Error("unmarshalled half an object")
	}
	if err := coalesce.JSON.Unmarshal([]byte(`{"id": "one"}`), &p); err == nil {
		t.Error("unmarshalled a string into a number")
	}
}

func TestRawGivesBackTheSameBytesWithoutCopyingThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Byte(), 1, -1).Draw(t, "bytes")
		before := bytes.Clone(want)
		data, err := coalesce.Raw.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got := []byte("what was there before")
		if err := coalesce.Raw.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, before) {
			t.Fatalf("got %q, want %q", got, before)
		}
		if &got[0] != &want[0] {
			t.Fatal("the bytes were copied")
		}
	})
}

func TestRawCarriesAnEmptyResult(t *testing.T) {
	for _, want := range [][]byte{nil, {}} {
		data, err := coalesce.Raw.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got := []byte("what was there before")
		if err := coalesce.Raw.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if len(got) != 0 {
			t.Errorf("got %q", got)
		}
	}
}

func TestRawRefusesOtherTypesAndNamesThem(t *testing.T) {
	for _, v := range []any{"text", 7, nil, product{}, new([]byte)} {
		if _, err := coalesce.Raw.Marshal(v); err == nil {
			t.Errorf("marshalled a %T", v)
		}
	}
	if _, err := coalesce.Raw.Marshal(product{}); err == nil || !strings.Contains(err.Error(), "coalesce_test.product") {
		t.Errorf("Marshal: %v, want the type in it", err)
	}
	for _, v := range []any{new(string), []byte{}, nil, new(product)} {
		if err := coalesce.Raw.Unmarshal([]byte("data"), v); err == nil {
			t.Errorf("unmarshalled into a %T", v)
		}
	}
	if err := coalesce.Raw.Unmarshal(nil, new(product)); err == nil || !strings.Contains(err.Error(), "*coalesce_test.product") {
		t.Errorf("Unmarshal: %v, want the type in it", err)
	}
}
