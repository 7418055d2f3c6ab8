package lost_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/lost"
)

func TestAFunctionIsLostAsItWas(t *testing.T) {
	if err := lost.Error(nil); err != coalesce.ErrGoexit {
		t.Errorf("an exit is %v", err)
	}
	first := lost.Error("boom")
	if panicked, ok := first.(*coalesce.PanicError); !ok || panicked.Value != "boom" || len(panicked.Stack) == 0 {
		t.Errorf("a panic is %#v", first)
	}
	if again := lost.Error(first); again != first {
		t.Errorf("a panic that crosses a second goroutine is %v", again)
	}
}

func TestANilPanicErrorIsAValueLikeAnyOther(t *testing.T) {
	err := lost.Error((*coalesce.PanicError)(nil))
	panicked, ok := err.(*coalesce.PanicError)
	if !ok || panicked == nil || len(panicked.Stack) == 0 {
		t.Fatalf("it is %#v", err)
	}
	if !strings.HasPrefix(err.Error(), "<nil>") || errors.Is(err, coalesce.ErrGoexit) {
		t.Errorf("it reads %q", err)
	}
}
