package wire_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

type missing struct {
	Table string
	ID    int
}

func (m *missing) Error() string { return fmt.Sprintf("%s has no row %d", m.Table, m.ID) }

var errSold = errors.New("sold out")

func init() {
	coalesce.RegisterErrorType[*missing]("wire_test.missing")
	coalesce.RegisterError("wire_test.errSold", errSold)
}

const large = 1 << 20

// cross is what another replica makes of err.
func cross(t *testing.T, err error, limit int) *coalesce.RemoteError {
	t.Helper()
	o := wire.ErrorOutcome(wire.KindError, flight, err, limit)
	if o.Kind != wire.KindError || len(o.Payload) > limit {
		t.Fatalf("an outcome of kind %d with %d bytes, limit %d", o.Kind, len(o.Payload), limit)
	}
	read, bad := wire.Decode(string(o.Encode()))
	if bad != nil {
		t.Fatal(bad)
	}
	got, bad := read.RemoteError()
	if bad != nil {
		t.Fatal(bad)
	}
	return got.(*coalesce.RemoteError)
}

func TestAnErrorReadsBackAsItWasWritten(t *testing.T) {
	r := random(t)
	for range 1000 {
		want := &coalesce.RemoteError{Message: string(someBytes(r, 100))}
		for i := range r.IntN(4) {
			want.Names = append(want.Names, fmt.Sprint(i, string(someBytes(r, 20))))
			want.Typed = append(want.Typed, coalesce.TypedError{Name: fmt.Sprint(i), JSON: append(someBytes(r, 50), 'x')})
		}
		if got := cross(t, want, large); !reflect.DeepEqual(got, want) {
			t.Fatalf("wrote %+v, read %+v", want, got)
		}
	}
}

func TestAMessageArrivesByteForByte(t *testing.T) {
	for _, message := range []string{"", "a\xffb", "\x00", "\ufffd", "€"} {
		if got := cross(t, errors.New(message), large); got.Message != message {
			t.Errorf("%q arrived as %q", message, got.Message)
		}
	}
}

func TestATooLargeErrorIsCutAndKeepsWhatItIs(t *testing.T) {
	lost := &missing{"products", 7}
	for _, character := range []string{"x", "€", "\xff", "\x80"} {
		message := strings.Repeat(character, 9<<20/len(character))
		original := fmt.Errorf("%w, %w: %s", errSold, lost, message)
		for limit := 250; limit < 260; limit++ {
			got := cross(t, original, limit)
			var typed *missing
			if !errors.Is(got, errSold) || !errors.As(got, &typed) || *typed != *lost {
				t.Fatalf("limit %d: it arrived as %+v", limit, got)
			}
			text, mark, _ := strings.Cut(got.Message, "…")
			if want := fmt.Sprintf(" (cut; %d bytes in all)", len(original.Error())); mark != want || !strings.HasPrefix(original.Error(), text) || len(text) < 30 {
				t.Fatalf("limit %d: the message is %q", limit, got.Message)
			}
			if utf8.ValidString(message) && !utf8.ValidString(text) {
				t.Fatalf("limit %d: it is cut within a character: %q", limit, text)
			}
		}
	}
}

func TestATypedErrorThatDoesNotFitIsLeftOut(t *testing.T) {
	big := &missing{strings.Repeat("x", 5000), 7}
	small := &missing{"products", 8}
	got := cross(t, errors.Join(big, small, errSold), 1000)
	var typed *missing
	if !errors.As(got, &typed) || *typed != *small || len(got.Typed) != 1 || !errors.Is(got, errSold) {
		t.Errorf("it arrived with %+v", got.Typed)
	}
}

func TestAnErrorThatNoLimitHoldsIsTooLarge(t *testing.T) {
	for limit := range 400 {
		o := wire.ErrorOutcome(wire.KindError, flight, errors.Join(errSold, &missing{"products", 7}, errors.New(strings.Repeat("x", 300))), limit)
		switch {
		case o.Kind == wire.KindTooLarge && o.Payload == nil && o.Flight == flight && limit < 100:
		case o.Kind == wire.KindError && len(o.Payload) <= limit:
		default:
			t.Errorf("limit %d: kind %d, %d bytes", limit, o.Kind, len(o.Payload))
		}
	}
	if o := wire.ErrorOutcome(wire.KindError, flight, errSold, -5); o.Kind != wire.KindTooLarge {
		t.Errorf("a limit below nothing: kind %d", o.Kind)
	}
}

type endless struct{ next []error }

func (e *endless) Error() string   { return "endless" }
func (e *endless) Unwrap() []error { return e.next }

func TestForeignErrorsDoNotPanicAndEnd(t *testing.T) {
	round := &endless{}
	round.next = []error{round, errSold, round}
	if got := cross(t, round, large); got.Message != "endless" || !errors.Is(got, errSold) {
		t.Errorf("%+v", got)
	}
	if got := cross(t, (*missing)(nil), large); !strings.Contains(got.Message, "an error that panics") {
		t.Errorf("a nil pointer arrived as %+v", got)
	}
	cross(t, nil, large)
}

func TestErrorsOfNestedReplicasKeepWhatTheyCameWith(t *testing.T) {
	inner := &coalesce.RemoteError{Message: "inner", Names: []string{"known.elsewhere"}, Typed: []coalesce.TypedError{{Name: "known.elsewhere", JSON: []byte("\xff")}}}
	got := cross(t, fmt.Errorf("outer: %w", inner), large)
	want := *inner
	want.Message = "outer: inner"
	if !reflect.DeepEqual(got, &want) {
		t.Errorf("%+v", got)
	}
}

// FuzzErrorPayload reads the payload of an error outcome from anybody.
func FuzzErrorPayload(f *testing.F) {
	f.Add([]byte("\xff\x00"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		err, bad := wire.Outcome{Kind: wire.KindError, Payload: payload}.RemoteError()
		if bad != nil {
			if !errors.Is(bad, wire.ErrGarbage) || err != nil {
				t.Fatalf("%q: %v, %v", payload, err, bad)
			}
			return
		}
		remote := err.(*coalesce.RemoteError)
		if errors.Is(err, context.DeadlineExceeded) != slices.Contains(remote.Names, "context.DeadlineExceeded") &&
			!slices.Contains(remote.Names, "fleetcall.ErrFlightTimeout") {
			t.Fatalf("%q: %q is not what errors.Is says", payload, remote.Names)
		}
		var typed *missing
		if errors.As(err, &typed) && typed == nil {
			t.Fatalf("%q: a nil *missing", payload)
		}
		// From a nested group it goes on as it came.
		again, bad := wire.ErrorOutcome(wire.KindError, flight, err, 2*len(payload)+100).RemoteError()
		if bad != nil || again.Error() != err.Error() {
			t.Fatalf("%q became %q, %v", err, again, bad)
		}
		for _, name := range remote.Names {
			if !slices.Contains(again.(*coalesce.RemoteError).Names, name) {
				t.Fatalf("name %q is lost", name)
			}
		}
		for _, typed := range remote.Typed {
			if !slices.ContainsFunc(again.(*coalesce.RemoteError).Typed, func(other coalesce.TypedError) bool { return reflect.DeepEqual(other, typed) }) {
				t.Fatalf("%+v is lost", typed)
			}
		}
	})
}
