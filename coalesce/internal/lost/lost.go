// Package lost says what became of functions that did not return.
package lost

import (
	"runtime/debug"

	"github.com/fleetcall/fleetcall/coalesce"
)

// Error returns a *coalesce.PanicError or coalesce.ErrGoexit, from what recover
// returned. A panic never recovers as nil (panic(nil) became a
// *runtime.PanicNilError in Go 1.21), so nil is Goexit. A panic that has crossed
// a goroutine before is kept as it is: its stack is the original one.
func Error(recovered any) error {
	if recovered == nil {
		return coalesce.ErrGoexit
	}
	if e, ok := recovered.(*coalesce.PanicError); ok && e != nil {
		return e
	}
	return &coalesce.PanicError{Value: recovered, Stack: debug.Stack()}
}
