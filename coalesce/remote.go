package coalesce

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"github.com/fleetcall/fleetcall/coalesce/internal/errtree"
)

// RemoteError is an error that the function returned on another replica. It has
// the original's message. errors.Is finds in it every error that was registered
// by RegisterError under the same name here and there, and errors.As every error
// of a type that was registered by RegisterErrorType here and there.
type RemoteError struct {
	Message string
	Names   []string     // the registered errors that the original was
	Typed   []TypedError // the errors of registered types that the original had in it
}

// TypedError is an error of a registered type on its way between replicas.
type TypedError struct {
	Name string // of the type
	JSON []byte // the error
}

// Error returns the original's message.
func (e *RemoteError) Error() string { return e.Message }

// Unwrap returns the errors registered here under e.Names, and those of types
// registered here that e.Typed has. What is not known here is left out. Each call
// decodes the latter anew, so that no two callers share one.
func (e *RemoteError) Unwrap() []error {
	if e == nil {
		return nil
	}
	var errs []error
	for _, name := range e.Names {
		if r, ok := registry.byName.Load(name); ok && r.(*registered).sentinel != nil {
			errs = append(errs, r.(*registered).sentinel)
		}
	}
	for _, typed := range e.Typed {
		if r, ok := registry.byName.Load(typed.Name); ok && r.(*registered).decode != nil {
			if err := decodeTyped(r.(*registered), typed.JSON); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errs
}

// NewRemoteError returns what other replicas get to know of err. It does not panic
// when a method of err does, and looks only so far into a chain of errors that
// never ends; only a method that does not return cannot be survived. A RemoteError in err, from a nested group, keeps
// what it came with, known here or not.
func NewRemoteError(err error) *RemoteError {
	e := &RemoteError{Message: messageOf(err)}
	all := registry.all()
	errtree.Walk(err, func(err error) bool {
		if remote, ok := err.(*RemoteError); ok {
			if remote != nil {
				e.add(remote.Names, remote.Typed)
			}
			return false
		}
		for _, r := range all {
			if r.sentinel != nil && errtree.Matches(err, r.sentinel) {
				e.add([]string{r.name}, nil)
			}
			if r.encode != nil {
				if data := encodeTyped(r, err); data != nil {
					e.add(nil, []TypedError{{r.name, data}})
				}
			}
		}
		return true
	})
	return e
}

// ErrorNames returns the names of the registered errors that err is, as errors.Is
// finds them, and those that a RemoteError in it came with.
func ErrorNames(err error) []string { return NewRemoteError(err).Names }

func (e *RemoteError) add(names []string, typed []TypedError) {
	for _, name := range names {
		if !slices.Contains(e.Names, name) {
			e.Names = append(e.Names, name)
		}
	}
	for _, t := range typed {
		if !slices.ContainsFunc(e.Typed, func(other TypedError) bool {
			return other.Name == t.Name && string(other.JSON) == string(t.JSON)
		}) {
			e.Typed = append(e.Typed, t)
		}
	}
}

// registered is what stands for a name.
type registered struct {
	name     string
	sentinel error // or a type:

	t      reflect.Type
	encode func(err error) []byte // nil: err is none, or cannot be encoded
	decode func(data []byte) error
}

type errorRegistry struct {
	sync.Mutex
	byName sync.Map      // name → *registered
	list   []*registered // in order of registration; guarded by Mutex
}

var registry errorRegistry

// add returns false when the name stands for something else.
func (r *errorRegistry) add(entry *registered, same func(*registered) bool) bool {
	r.Lock()
	defer r.Unlock()
	if other, loaded := r.byName.LoadOrStore(entry.name, entry); loaded {
		return same(other.(*registered))
	}
	r.list = append(r.list, entry)
	return true
}

func (r *errorRegistry) all() []*registered {
	r.Lock()
	defer r.Unlock()
	return slices.Clip(r.list)
}

// RegisterError makes err recognisable by errors.Is across replicas. Each
// replica registers it under the same name, usually in an init function or a
// package variable. RegisterError panics when name or err is empty, or name
// is taken by another error: that is a mistake in the program.
func RegisterError(name string, err error) {
	if name == "" || err == nil {
		panic("fleetcall: RegisterError needs a name and an error")
	}
	same := func(other *registered) bool { return other.sentinel != nil && errtree.Equal(other.sentinel, err) }
	if !registry.add(&registered{name: name, sentinel: err}, same) {
		panic(fmt.Sprintf("fleetcall: RegisterError: name %q is taken by another error", name))
	}
}

// RegisterErrorType makes errors of type T travel with their fields: errors.As
// finds on every replica a T that is equal to the one that the function returned,
// wherever in the tree of errors that was. T may be a struct or a pointer to one,
// or any other type that is an error, but no interface. Each replica registers it
// under the same name, usually in an init function. The methods of T work on the
// other replicas, Is and Unwrap among them.
//
// The fields travel as JSON. RegisterErrorType panics when the name is empty or
// taken by something else, and when JSON would not carry T as it is, as the Check
// of the JSON codec finds out: that is a mistake in the program. A T of which only
// a value shows that JSON cannot carry it (text that is not UTF-8, a number that
// is infinite, a nil pointer), or that is larger than what a group sends, arrives
// without its type: as a RemoteError with the message.
func RegisterErrorType[T error](name string) {
	t := reflect.TypeFor[T]()
	if name == "" {
		panic(fmt.Sprintf("fleetcall: RegisterErrorType[%s] needs a name", t))
	}
	if t.Kind() == reflect.Interface {
		panic(fmt.Sprintf("fleetcall: RegisterErrorType[%s]: an interface is no type that can be decoded; register the types behind it", t))
	}
	if l := jsonLoss(t); l != nil {
		panic(fmt.Sprintf("fleetcall: RegisterErrorType[%s]: JSON would not carry %s as it is: %s. Give %s MarshalJSON and UnmarshalJSON", t, l.path, l.why, t))
	}
	codec := JSON[T]()
	entry := &registered{name: name, t: t}
	entry.encode = func(err error) []byte {
		typed, ok := err.(T)
		if !ok {
			as, has := err.(interface{ As(any) bool })
			if !has || !as.As(&typed) {
				return nil
			}
		}
		if v := reflect.ValueOf(typed); v.Kind() == reflect.Pointer && v.IsNil() {
			return nil
		}
		data, failed := codec.Marshal(typed)
		if failed != nil {
			return nil
		}
		return data
	}
	entry.decode = func(data []byte) error {
		typed, failed := codec.Unmarshal(data)
		if failed != nil {
			return nil
		}
		if v := reflect.ValueOf(typed); v.Kind() == reflect.Pointer && v.IsNil() {
			return nil
		}
		return typed
	}
	if !registry.add(entry, func(other *registered) bool { return other.t == t }) {
		panic(fmt.Sprintf("fleetcall: RegisterErrorType[%s]: name %q is taken by another error", t, name))
	}
}

func init() {
	for name, err := range map[string]error{
		"fleetcall.ErrFlightTimeout": ErrFlightTimeout,
		"fleetcall.ErrRemotePanic":   ErrRemotePanic,
		"fleetcall.ErrGoexit":        ErrGoexit,
		"fleetcall.ErrNoResult":      ErrNoResult,
		"context.DeadlineExceeded":   context.DeadlineExceeded,
	} {
		RegisterError(name, err)
	}
}
