package coalescehttp

import (
	"encoding/binary"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce"
)

func carry(t testing.TB, a *Answer) (*Answer, []byte) {
	t.Helper()
	data, err := Codec().Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Codec().Unmarshal(data)
	if err != nil {
		t.Fatalf("%+v: %v", a, err)
	}
	return got, data
}

func TestAnAnswerArrivesAsItWasSent(t *testing.T) {
	for name, a := range map[string]*Answer{
		"an answer": {Flight: "f", Replica: "host:1", Vary: []string{"Accept", "Cookie"}, Fields: "digest", Status: 200,
			Header: http.Header{"Date": {"now"}, "X-A": {"1", "", "2"}, "Content-Type": nil, "X-\xff": {"\x00\xff"}}, Body: []byte("body\x00")},
		"no body":   {Flight: "f", Status: 204, Header: http.Header{}},
		"a verdict": {Flight: "f", Alone: ReasonPrivate, Vary: []string{"Cookie"}, Fields: "digest", Header: http.Header{}},
		"a failure": {Failure: &coalesce.RemoteError{Message: "refused", Names: []string{"a", "b"},
			Typed: []coalesce.TypedError{{Name: "c", JSON: []byte("{}")}, {Name: "d", JSON: []byte{}}}}, Header: http.Header{}},
		"a failure without words": {Failure: &coalesce.RemoteError{}, Header: http.Header{}},
		"a large one":             {Status: 999, Header: http.Header{strings.Repeat("x", 300): {strings.Repeat("y", 70000)}}, Body: make([]byte, 1<<20)},
	} {
		if got, _ := carry(t, a); !reflect.DeepEqual(got, a) {
			t.Errorf("%s: sent %+v, got %+v", name, a, got)
		}
	}
}

// EveryFieldTravels fails when Answer gets a field that the codec does not know: its name
// must change with it.
func TestEveryFieldTravels(t *testing.T) {
	a := &Answer{Flight: "f", Replica: "r", Failure: &coalesce.RemoteError{Message: "m"}, Alone: "a", Vary: []string{"v"}, Fields: "d", Status: 200,
		Header: http.Header{"A": {"b"}}, Body: []byte("b")}
	for i := range reflect.TypeFor[Answer]().NumField() {
		if reflect.ValueOf(*a).Field(i).IsZero() {
			t.Errorf("the test does not set %s", reflect.TypeFor[Answer]().Field(i).Name)
		}
	}
	if got, _ := carry(t, a); !reflect.DeepEqual(got, a) {
		t.Errorf("sent %+v, got %+v", a, got)
	}
}

func TestAHeaderThatArrivesCanBeWritten(t *testing.T) {
	got, _ := carry(t, &Answer{Status: 200})
	got.Header.Set("A", "b") // must not panic
	if got.Body != nil || got.Vary != nil {
		t.Errorf("%+v", got)
	}
}

func TestABodyIsNotCopiedWhenItArrives(t *testing.T) {
	body := []byte(strings.Repeat("x", 1000))
	got, data := carry(t, &Answer{Status: 200, Header: http.Header{"A": {"b"}}, Body: body})
	if &got.Body[0] != &data[len(data)-len(body)] {
		t.Error("it has another memory")
	}
	_ = append(got.Body, "more"...)
	if cap(got.Body) != len(got.Body) {
		t.Error("a caller that appends writes into somebody else's memory")
	}
}

func TestAnAnswerTakesFewBytes(t *testing.T) {
	a := &Answer{Flight: strings.Repeat("f", 22), Status: 200, Header: http.Header{"Content-Type": {"application/json"}, "Date": {"Thu, 01 Jan 1970 00:00:00 GMT"}}, Body: []byte("{}")}
	_, data := carry(t, a)
	text := len("Content-Type") + len("application/json") + len("Date") + len("Thu, 01 Jan 1970 00:00:00 GMT") + len("{}") + 22
	if len(data) > text+20 {
		t.Errorf("%d bytes for %d", len(data), text)
	}
}

func TestBytesThatAreNoAnswerAreRefused(t *testing.T) {
	good := func(a *Answer) []byte { data, _ := Codec().Marshal(a); return data }
	number := func(n uint64) string { return string(binary.AppendUvarint(nil, n)) }
	front := "\x00\x00\x00\x00\x00\x00" // flight, replica, failure, alone, vary, fields
	for name, data := range map[string]string{
		"nothing":                       "",
		"half":                          string(good(&Answer{Status: 200, Header: http.Header{"A": {"b"}}})[:8]),
		"no status":                     front + number(0) + "\x00",
		"a status of no final answer":   front + number(100) + "\x00",
		"a status that is none":         front + number(1000) + "\x00",
		"a number in the long form":     "\x80\x00" + front[1:] + number(200) + "\x00",
		"a number that is too large":    strings.Repeat("\xff", 11),
		"fields out of order":           front + number(200) + "\x02\x01b\x00\x01a\x00",
		"a field twice":                 front + number(200) + "\x02\x01a\x00\x01a\x00",
		"fewer fields than it says":     front + number(200) + number(1<<62),
		"a string longer than the rest": number(9) + front[1:] + number(200) + "\x00",
		"a Vary without an end":         "\x00\x00\x00\x00" + number(33) + strings.Repeat("\x01x", 33) + "\x00" + number(200) + "\x00",
		"two failures":                  "\x00\x00\x02\x00\x00\x00" + number(200) + "\x00",
	} {
		if a, err := Codec().Unmarshal([]byte(data)); err == nil || a != nil {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if _, err := Codec().Marshal(nil); err == nil {
		t.Error("no answer at all is sent")
	}
}

func TestALieAboutLengthsCostsNoMemory(t *testing.T) {
	lie := make([]byte, 1<<20)
	for i := range lie {
		lie[i] = 0x7f
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, start := range []string{"\x00\x00\x00\x00\xff\xff\x3f", "\x00\x00\x00\x00\x00\x00\xc8\x01\xff\xff\x1f"} {
		if _, err := Codec().Unmarshal(append([]byte(start), lie...)); err == nil {
			t.Error("it is accepted")
		}
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 40<<20 {
		t.Errorf("%d bytes for 2 MiB", used)
	}
}
