package coalesce_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fleetcall/fleetcall/coalesce"
)

type (
	// notFound is an error by value.
	notFound struct {
		Table string
		ID    int64
	}
	// rejected is an error by pointer, with methods of its own.
	rejected struct {
		Reason  string
		Limits  map[string]float64
		Missing *notFound
	}
	code int
	// wrapping travels by its own methods.
	wrapping struct{ inner error }
	unlisted struct{ A int }
)

func (e notFound) Error() string         { return fmt.Sprintf("%s has no row %d", e.Table, e.ID) }
func (e *rejected) Error() string        { return "rejected: " + e.Reason }
func (e *rejected) Is(target error) bool { return target == fs.ErrPermission }
func (e *rejected) Unwrap() error {
	if e.Missing == nil {
		return nil
	}
	return *e.Missing
}
func (c code) Error() string     { return fmt.Sprintf("code %d", int(c)) }
func (w wrapping) Error() string { return w.inner.Error() }
func (w wrapping) MarshalJSON() ([]byte, error) {
	return []byte(fmt.Sprintf("%q", w.inner.Error())), nil
}
func (w *wrapping) UnmarshalJSON(data []byte) error {
	w.inner = errors.New(strings.Trim(string(data), `"`))
	return nil
}
func (e *unlisted) Error() string { return "unlisted" }

func init() {
	coalesce.RegisterErrorType[notFound]("coalesce_test.notFound")
	coalesce.RegisterErrorType[*rejected]("coalesce_test.rejected")
	coalesce.RegisterErrorType[code]("coalesce_test.code")
	coalesce.RegisterErrorType[wrapping]("coalesce_test.wrapping")
}

func TestAnErrorOfARegisteredTypeArrivesWithItsFieldsFromAnywhereInTheTree(t *testing.T) {
	wraps := []func(error) error{
		func(err error) error { return err },
		func(err error) error { return fmt.Errorf("reading: %w", err) },
		func(err error) error { return fmt.Errorf("%w and %w", errUnknown, err) },
		func(err error) error { return errors.Join(errUnknown, err, errNotFound) },
		func(err error) error { return coalesce.NewRemoteError(err) }, // a nested group
	}
	rapid.Check(t, func(t *rapid.T) {
		missing := notFound{rapid.String().Draw(t, "table"), rapid.Int64().Draw(t, "id")}
		refused := &rejected{rapid.String().Draw(t, "reason"), rapid.MapOf(rapid.String(), rapid.Float64Range(-1, 1)).Draw(t, "limits"), &missing}
		var original error = refused
		for _, wrap := range rapid.SliceOfN(rapid.SampledFrom(wraps), 0, 5).Draw(t, "wraps") {
			original = wrap(original)
		}
		got := cross(original)
		var gotRefused *rejected
		var gotMissing notFound
		if !errors.As(got, &gotRefused) || !reflect.DeepEqual(gotRefused, refused) || gotRefused == refused {
			t.Fatalf("%+v arrived as %+v", refused, gotRefused)
		}
		if !errors.As(got, &gotMissing) || gotMissing != missing {
			t.Fatalf("%+v arrived as %+v", missing, gotMissing)
		}
		if got.Error() != original.Error() || !errors.Is(got, fs.ErrPermission) {
			t.Fatalf("%v arrived as %v", original, got)
		}
	})
}

func TestErrorsOfOtherTypesStayRemoteErrors(t *testing.T) {
	got := cross(fmt.Errorf("%w, %w", code(7), &unlisted{1}))
	var c code
	var other *unlisted
	var pointer *notFound
	if !errors.As(got, &c) || c != 7 || errors.As(got, &other) || errors.As(got, &pointer) {
		t.Errorf("%#v", got)
	}
	var w wrapping
	if !errors.As(cross(wrapping{errNotFound}), &w) || w.inner.Error() != errNotFound.Error() {
		t.Errorf("a type that writes itself arrived as %+v", w)
	}
}

// asCode is no code, and becomes one.
type asCode struct{}

func (asCode) Error() string { return "a code" }
func (asCode) As(target any) bool {
	c, ok := target.(*code)
	if ok {
		*c = 42
	}
	return ok
}

func TestWhatAnErrorBecomesByItsAsMethodArrivesToo(t *testing.T) {
	var c code
	if !errors.As(cross(fmt.Errorf("outer: %w", asCode{})), &c) || c != 42 {
		t.Errorf("it arrived as %d", c)
	}
}

func TestARegisteredErrorThatCannotBeEncodedArrivesAsItsMessage(t *testing.T) {
	for _, err := range []error{
		notFound{Table: "a\xffb"},
		&rejected{Limits: map[string]float64{"": math.NaN()}},
	} {
		got := coalesce.NewRemoteError(err)
		if got.Message != err.Error() || len(got.Typed) != 0 {
			t.Errorf("%v arrived as %+v", err, got)
		}
	}
	if got := coalesce.NewRemoteError((*rejected)(nil)); len(got.Typed) != 0 || !strings.Contains(got.Message, "an error that panics") {
		t.Errorf("a nil pointer arrived as %+v", got)
	}
}

func TestNestedGroupsPassOnWhatIsNotKnownHere(t *testing.T) {
	came := &coalesce.RemoteError{Message: "m", Names: []string{"of elsewhere"}, Typed: []coalesce.TypedError{{Name: "of elsewhere", JSON: []byte("{}")}}}
	other := &coalesce.RemoteError{Message: "n", Names: []string{"of elsewhere", "another"}, Typed: came.Typed}
	got := coalesce.NewRemoteError(errors.Join(came, fmt.Errorf("outer: %w", other), (*coalesce.PanicError)(nil)))
	if !reflect.DeepEqual(got.Names, []string{"of elsewhere", "another"}) || !reflect.DeepEqual(got.Typed, came.Typed) {
		t.Errorf("it goes on as %+v", got)
	}
	if got.Unwrap() != nil {
		t.Errorf("it unwraps to %v", got.Unwrap())
	}
}

func TestTypedGarbageIsLeftOut(t *testing.T) {
	for _, data := range []string{"", "null", "{", `{"ID":"one"}`, "\xff", "[]"} {
		err := &coalesce.RemoteError{Typed: []coalesce.TypedError{{Name: "coalesce_test.rejected", JSON: []byte(data)}, {Name: "coalesce_test.errNotFound", JSON: []byte("{}")}}}
		var got *rejected
		if data != `{"ID":"one"}` && errors.As(err, &got) {
			t.Errorf("%q became %+v", data, got)
		}
	}
}

// The kinds of foreign errors that must do no harm.
type (
	loop         struct{ next []error }
	ring         struct{ next error }
	growing      struct{ depth int }
	fork         struct{ depth int }
	panicky      struct{ what string }
	incomparable struct{ _ []int }
	hidden       struct{ v any }
)

func (l *loop) Error() string   { return "loop" }
func (l *loop) Unwrap() []error { return l.next }
func (l *ring) Error() string   { return "ring" }
func (l *ring) Unwrap() error   { return l.next }
func (g growing) Error() string { return "growing" }
func (g growing) Unwrap() error { return growing{g.depth + 1} }
func (f fork) Error() string    { return "fork" }
func (f fork) Unwrap() []error  { return []error{fork{f.depth + 1}, fork{f.depth + 1}} }
func (p panicky) maybe(what string) {
	if p.what == what {
		panic(what)
	}
}
func (p panicky) Error() string    { p.maybe("Error"); return "panicky" }
func (p panicky) Unwrap() error    { p.maybe("Unwrap"); return errNotFound }
func (p panicky) Is(error) bool    { p.maybe("Is"); return false }
func (p panicky) As(any) bool      { p.maybe("As"); return false }
func (incomparable) Error() string { return "incomparable" }
func (hidden) Error() string       { return "hidden" }

func TestForeignErrorsDoNoHarm(t *testing.T) {
	self := &loop{}
	self.next = []error{self, nil, errNotFound, self}
	round := &ring{}
	round.next = &ring{next: fmt.Errorf("%w: %w", errNotFound, round)}
	for _, err := range []error{
		self, round,
		errors.Join(errNotFound, growing{}), errors.Join(errNotFound, fork{}),
		panicky{"Error"}, panicky{"Is"}, panicky{"As"},
		errors.Join(panicky{"Unwrap"}, errNotFound),
		errors.Join((*rejected)(nil), (*notFound)(nil), (*coalesce.PanicError)(nil), (*coalesce.RemoteError)(nil), errNotFound),
		errors.Join(incomparable{}, hidden{[]int{}}, errNotFound),
	} {
		got := coalesce.NewRemoteError(err)
		if !errors.Is(got, errNotFound) || errors.Is(got, errLocked) {
			t.Errorf("%T arrived with the names %q", err, got.Names)
		}
		if coalesce.OutcomeOf(err) == coalesce.OutcomeOK {
			t.Errorf("%T is no error", err)
		}
	}
	if got := coalesce.NewRemoteError(panicky{"Error"}); !strings.HasPrefix(got.Message, "fleetcall: the function returned an error that panics: Error") {
		t.Errorf("the message is %q", got.Message)
	}
	coalesce.RegisterError("coalesce_test.hidden", hidden{[]int{}}) // cannot be compared
	if got := coalesce.ErrorNames(hidden{[]int{}}); len(got) != 0 {
		t.Errorf("the names are %q", got)
	}
}

func TestRegisterErrorTypePanicsOnMistakesAndSaysWhich(t *testing.T) {
	for want, register := range map[string]func(){
		"needs a name":                         func() { coalesce.RegisterErrorType[code]("") },
		`"coalesce_test.code" is taken`:        func() { coalesce.RegisterErrorType[notFound]("coalesce_test.code") },
		`"coalesce_test.errNotFound" is taken`: func() { coalesce.RegisterErrorType[code]("coalesce_test.errNotFound") },
		"an interface":                         func() { coalesce.RegisterErrorType[error]("coalesce_test.error") },
		"coalesce_test.loop.next as it is: it is not exported. Give *coalesce_test.loop MarshalJSON and UnmarshalJSON": func() { coalesce.RegisterErrorType[*loop]("coalesce_test.loop") },
		"coalesce_test.panicky.what":                    func() { coalesce.RegisterErrorType[panicky]("coalesce_test.panicky") },
		"fs.PathError.Err as it is: it is an interface": func() { coalesce.RegisterErrorType[*fs.PathError]("coalesce_test.path") },
	} {
		func() {
			defer func() {
				if value := recover(); value == nil || !strings.Contains(fmt.Sprint(value), want) {
					t.Errorf("panicked with %v, want %q in it", value, want)
				}
			}()
			register()
		}()
	}
	coalesce.RegisterErrorType[code]("coalesce_test.code") // the same again
	coalesce.RegisterErrorType[code]("coalesce_test.code.renamed")
	if got := coalesce.NewRemoteError(code(1)).Typed; len(got) != 2 {
		t.Errorf("under two names it travels as %v", got)
	}
}
