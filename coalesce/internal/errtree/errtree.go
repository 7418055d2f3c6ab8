// Package errtree looks at the trees that the errors of callers' functions make.
//
// They are foreign code. errors.Is never returns from an error that wraps itself, a
// tree whose branches meet again can be larger than memory, and a method of an error
// may panic: a nil pointer in an error is the usual reason. None of this may keep a
// flight from ending, so each method is called behind a recover, and only so many
// errors of a tree are looked at.
package errtree

import "reflect"

const (
	// maxErrors is how many errors of a tree are looked at. Real trees have
	// less than ten.
	maxErrors = 1000
	// maxDepth bounds the stack that the walk needs.
	maxDepth = 100
)

// Walk calls visit for err and the errors that it wraps, in the order of errors.Is:
// at most a thousand, no deeper than a hundred levels, and what a pointer wraps once.
// Where visit returns false, it does not go deeper.
func Walk(err error, visit func(error) bool) {
	w := walker{visit: visit, left: maxErrors}
	w.walk(err, 0)
}

type walker struct {
	visit func(error) bool
	left  int
	seen  map[error]bool // the pointers among them; made when there is a second error
}

func (w *walker) walk(err error, depth int) {
	if err == nil || depth > maxDepth || w.left == 0 {
		return
	}
	w.left--
	if !w.visit(err) {
		return
	}
	inner := unwrap(err)
	if len(inner) == 0 {
		return
	}
	if reflect.TypeOf(err).Kind() == reflect.Pointer {
		if w.seen[err] {
			return
		}
		if w.seen == nil {
			w.seen = map[error]bool{}
		}
		w.seen[err] = true
	}
	for _, e := range inner {
		w.walk(e, depth+1)
	}
}

func unwrap(err error) (inner []error) {
	defer func() {
		if recover() != nil {
			inner = nil
		}
	}()
	switch err := err.(type) {
	case interface{ Unwrap() error }:
		return []error{err.Unwrap()}
	case interface{ Unwrap() []error }:
		return err.Unwrap()
	}
	return nil
}

// Is is errors.Is for trees of any shape.
func Is(err, target error) (found bool) {
	if err == nil {
		return target == nil
	}
	Walk(err, func(err error) bool {
		found = found || Matches(err, target)
		return !found
	})
	return found
}

// Matches says whether err itself, and not what it wraps, is the target: it equals
// it, or its Is method says so.
func Matches(err, target error) (matches bool) {
	defer func() {
		if recover() != nil {
			matches = false
		}
	}()
	if Equal(err, target) {
		return true
	}
	own, ok := err.(interface{ Is(error) bool })
	return ok && own.Is(target)
}

// Equal is a == b, without the panic for values that cannot be compared.
func Equal(a, b error) (same bool) {
	defer func() {
		if recover() != nil {
			same = false
		}
	}()
	return a == b
}
