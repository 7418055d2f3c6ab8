package coalesce_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/fleetcall/fleetcall/coalesce"
)

var (
	errNotFound = errors.New("no such product")
	errTooOld   = errors.New("product is too old")
	errLocked   = errors.New("product is locked")
	errUnknown  = errors.New("registered nowhere")

	registered = map[string]error{
		"coalesce_test.errNotFound": errNotFound,
		"coalesce_test.errTooOld":   errTooOld,
		"coalesce_test.errLocked":   errLocked,
	}
)

func init() {
	for name, err := range registered {
		coalesce.RegisterError(name, err)
	}
}

// cross is what another replica makes of err.
func cross(err error) error {
	return coalesce.NewRemoteError(err)
}

func TestErrorKeepsItsMessageAndItsRegisteredIdentitiesAcrossReplicas(t *testing.T) {
	all := []error{errNotFound, errTooOld, errLocked, errUnknown}
	rapid.Check(t, func(t *rapid.T) {
		chosen := rapid.SliceOfDistinct(rapid.SampledFrom(all), func(err error) string { return err.Error() }).Draw(t, "errors")
		original := fmt.Errorf("%s: %w", rapid.String().Draw(t, "message"), errors.Join(chosen...))
		got := cross(original)
		if got.Error() != original.Error() {
			t.Fatalf("message %q, want %q", got, original)
		}
		for _, err := range all {
			want := err != errUnknown && slices.Contains(chosen, err)
			if errors.Is(got, err) != want {
				t.Fatalf("errors.Is(%q) is %v, want %v", err, !want, want)
			}
		}
		// Through a second replica it is still the same.
		if again := cross(got); again.Error() != got.Error() || !slices.Equal(coalesce.ErrorNames(again), coalesce.ErrorNames(got)) {
			t.Fatalf("the second hop made %#v of %#v", again, got)
		}
	})
}

func TestErrorNamesFindsEveryRegisteredErrorInTheTree(t *testing.T) {
	err := fmt.Errorf("reading: %w", errors.Join(errUnknown, fmt.Errorf("row: %w", errNotFound), errLocked))
	got := coalesce.ErrorNames(err)
	slices.Sort(got)
	if want := []string{"coalesce_test.errLocked", "coalesce_test.errNotFound"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := coalesce.ErrorNames(errUnknown); len(got) != 0 {
		t.Errorf("an unregistered error has the names %q", got)
	}
	if got := coalesce.ErrorNames(nil); len(got) != 0 {
		t.Errorf("no error has the names %q", got)
	}
}

func TestNamesThisReplicaDoesNotKnowAreIgnored(t *testing.T) {
	err := &coalesce.RemoteError{Message: "text", Names: []string{"of a newer version", "coalesce_test.errLocked"}}
	if !errors.Is(err, errLocked) {
		t.Error("the known name is lost beside an unknown one")
	}
	if errors.Is(err, errNotFound) {
		t.Error("is an error that was not named")
	}
	if err := (&coalesce.RemoteError{Message: "text"}); err.Error() != "text" || errors.Is(err, errLocked) {
		t.Errorf("without names: %v", err)
	}
}

func TestRemoteErrorRemainsRecognisableAsRemote(t *testing.T) {
	var remote *coalesce.RemoteError
	if err := fmt.Errorf("reading: %w", cross(errNotFound)); !errors.As(err, &remote) || remote.Message != errNotFound.Error() {
		t.Errorf("got %#v", remote)
	}
}

func TestErrorsOfFleetcallThatCrossReplicasKeepTheirIdentity(t *testing.T) {
	for _, err := range []error{
		coalesce.ErrFlightTimeout, coalesce.ErrRemotePanic, coalesce.ErrGoexit, context.DeadlineExceeded,
	} {
		if !errors.Is(cross(fmt.Errorf("reading: %w", err)), err) {
			t.Errorf("%v is lost on the way", err)
		}
	}
	if errors.Is(cross(context.DeadlineExceeded), coalesce.ErrFlightTimeout) {
		t.Error("any exceeded deadline became a flight timeout")
	}
}

func TestFlightTimeoutIsAnExceededDeadline(t *testing.T) {
	err := fmt.Errorf("reading: %w", coalesce.ErrFlightTimeout)
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, coalesce.ErrFlightTimeout) {
		t.Error("not found by errors.Is")
	}
	if errors.Is(err, context.Canceled) {
		t.Error("is a cancellation")
	}
	if !os.IsTimeout(coalesce.ErrFlightTimeout) {
		t.Error("does not report that it is a timeout")
	}
	if !errors.Is(cross(coalesce.ErrFlightTimeout), context.DeadlineExceeded) {
		t.Error("is none on another replica")
	}
}

func TestErrorsOfFleetcallAreToldApartAndNameTheirOrigin(t *testing.T) {
	all := []error{
		coalesce.ErrFlightTimeout, coalesce.ErrPoisoned, coalesce.ErrRemotePanic,
		coalesce.ErrGoexit, coalesce.ErrUnavailable, coalesce.ErrClosed,
	}
	for i, err := range all {
		if !strings.HasPrefix(err.Error(), "fleetcall: ") {
			t.Errorf("%q does not say where it comes from", err)
		}
		for j, other := range all {
			if errors.Is(err, other) != (i == j) {
				t.Errorf("errors.Is(%q, %q) is %v", err, other, i != j)
			}
		}
	}
}

func TestRegisterErrorAcceptsTheSameErrorAgain(t *testing.T) {
	before := coalesce.ErrorNames(errNotFound)
	coalesce.RegisterError("coalesce_test.errNotFound", errNotFound)
	if after := coalesce.ErrorNames(errNotFound); !slices.Equal(after, before) {
		t.Errorf("names %q, then %q", before, after)
	}
}

func TestErrorRegisteredUnderTwoNamesIsFoundByEither(t *testing.T) {
	coalesce.RegisterError("coalesce_test.errTooOld.renamed", errTooOld)
	got := coalesce.ErrorNames(errTooOld)
	slices.Sort(got)
	if want := []string{"coalesce_test.errTooOld", "coalesce_test.errTooOld.renamed"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, name := range got {
		if !errors.Is(&coalesce.RemoteError{Names: []string{name}}, errTooOld) {
			t.Errorf("not found by %q", name)
		}
	}
}

func TestRegisterErrorPanicsOnMistakesAndSaysWhich(t *testing.T) {
	for _, test := range []struct {
		what, name string
		err        error
		want       string
	}{
		{"no name", "", errUnknown, "needs a name and an error"},
		{"no error", "coalesce_test.nothing", nil, "needs a name and an error"},
		{"a name that is taken", "coalesce_test.errNotFound", errUnknown, `"coalesce_test.errNotFound" is taken`},
	} {
		func() {
			defer func() {
				if value := recover(); value == nil || !strings.Contains(fmt.Sprint(value), test.want) {
					t.Errorf("%s: panicked with %v, want %q in it", test.what, value, test.want)
				}
			}()
			coalesce.RegisterError(test.name, test.err)
		}()
	}
	if !errors.Is(&coalesce.RemoteError{Names: []string{"coalesce_test.errNotFound"}}, errNotFound) {
		t.Error("the refused registration took the name")
	}
	if got := coalesce.ErrorNames(errUnknown); len(got) != 0 {
		t.Errorf("the refused error has the names %q", got)
	}
	// A refusal must not leave the registry locked.
	coalesce.RegisterError("coalesce_test.errLocked", errLocked)
}

func TestErrorsCanBeRegisteredWhileOthersAreLookedUp(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			name := fmt.Sprintf("coalesce_test.concurrent.%d", i)
			err := concurrentErrors[i]
			coalesce.RegisterError(name, err)
			for range 100 {
				if got := coalesce.ErrorNames(err); !slices.Equal(got, []string{name}) {
					t.Errorf("names %q, want %q", got, name)
					return
				}
				if !errors.Is(cross(err), err) {
					t.Errorf("%v is lost on the way", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

var concurrentErrors = func() (errs [8]error) {
	for i := range errs {
		errs[i] = fmt.Errorf("concurrent error %d", i)
	}
	return errs
}()

func TestPanicErrorShowsValueAndStackAndUnwrapsErrors(t *testing.T) {
	stack := []byte("goroutine 7 [running]:")
	for _, test := range []struct {
		value any
		text  string
		is    error // nil: Unwrap gives nothing
	}{
		{"boom", "boom", nil},
		{42, "42", nil},
		{errNotFound, errNotFound.Error(), errNotFound},
		{fmt.Errorf("row: %w", errNotFound), "row: " + errNotFound.Error(), errNotFound},
		{new(runtime.PanicNilError), "panic called with nil argument", nil},
	} {
		e := &coalesce.PanicError{Value: test.value, Stack: stack}
		if got := e.Error(); !strings.HasPrefix(got, test.text) || !bytes.HasSuffix([]byte(got), stack) {
			t.Errorf("message %q, want %q first and the stack last", got, test.text)
		}
		if test.is != nil && !errors.Is(e, test.is) {
			t.Errorf("%v: errors.Is does not find its value", test.value)
		}
		if _, isError := test.value.(error); !isError && errors.Unwrap(e) != nil {
			t.Errorf("%v unwraps to %v", test.value, errors.Unwrap(e))
		}
	}
}
