// Package lost makes errors of what became of functions that did not return.
package lost

import (
	"runtime/debug"

	"github.com/fleetcall/fleetcall/coalesce"
)

// Error returns a *coalesce.PanicError or coalesce.ErrGoexit, for a function that did not
// return, from what recover returned. A panic never recovers as nil (since Go 1.21,
// panic(nil) recovers as a *runtime.PanicNilError), so nil means runtime.Goexit. A
// *coalesce.PanicError is returned as it is: the panic has crossed a goroutine before, and
// its stack is the original one. A nil *coalesce.PanicError has crossed nothing, and is a
// value like any other.
func Error(recovered any) error {
	if recovered == nil {
		return coalesce.ErrGoexit
	}
	if e, ok := recovered.(*coalesce.PanicError); ok && e != nil {
		return e
	}
	return &coalesce.PanicError{Value: recovered, Stack: debug.Stack()}
}
