// Package errtree looks for errors in the trees that other people's errors make.
//
// errors.Is never returns from an error that wraps itself, and a tree whose
// branches meet again can be larger than memory. A caller's function may return
// such an error, and its Unwrap or Is method may panic (a nil pointer in an error
// is the usual reason). None of this may keep a flight from ending.
package errtree

import "reflect"

const (
	// maxErrors is how many errors of a tree are looked at. Real trees have
	// less than ten.
	maxErrors = 1000
	// maxDepth bounds the stack that the walk needs.
	maxDepth = 100
)

// Is is errors.Is for trees of any shape. It looks at the first thousand errors,
// in the order of errors.Is, and no deeper than a hundred levels. When a method
// of an error panics, the answer is false.
func Is(err, target error) (found bool) {
	if err == nil || target == nil {
		return err == target
	}
	defer func() {
		if recover() != nil {
			found = false
		}
	}()
	w := walk{target: target, comparable: reflect.TypeOf(target).Comparable(), left: maxErrors}
	return w.is(err, maxDepth)
}

type walk struct {
	target     error
	comparable bool // a target that is not comparable is found by Is methods alone
	left       int  // errors that may still be looked at
}

func (w *walk) is(err error, depth int) bool {
	for ; err != nil && depth > 0 && w.left > 0; depth-- {
		w.left--
		if w.comparable && err == w.target {
			return true
		}
		if e, ok := err.(interface{ Is(error) bool }); ok && e.Is(w.target) {
			return true
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			for _, wrapped := range e.Unwrap() {
				if w.is(wrapped, depth-1) {
					return true
				}
			}
			return false
		default:
			return false
		}
	}
	return false
}
