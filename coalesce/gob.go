package coalesce

import (
	"bytes"
	"encoding"
	"encoding/gob"
	"fmt"
	"reflect"
)

// Gob is encoding/gob: larger and slower than JSON for small results, but it
// carries what JSON does not: bytes that are not UTF-8, numbers that are infinite
// or not a number, complex numbers, and any type as a map's key.
//
// Its Check refuses a V that gob would change on the way: fields that are not
// exported, channels and functions, which it leaves out without a word; pointers
// in a struct to anything but a plain struct, because gob leaves out zero values
// and a pointer to one arrives as nil; and interfaces. Gob carries an interface
// when every type that may be in it is registered by gob.Register, on each
// replica; nobody can check that from outside, so accept it with AllowLossy().
//
// A type with a pair of GobEncode and GobDecode, or of MarshalBinary and
// UnmarshalBinary, is accepted as it is. A slice or a map in a struct that is empty
// but not nil arrives as nil. A value that contains itself must not be given to
// gob: it follows the pointers until the stack is full.
func Gob[V any]() Codec[V] {
	return gobCodec[V]{pointer: reflect.TypeFor[V]().Kind() == reflect.Pointer}
}

type gobCodec[V any] struct{ pointer bool }

func (gobCodec[V]) Name() string { return "gob" }

// Marshal makes a nil pointer an empty message, because gob has none.
func (c gobCodec[V]) Marshal(v V) ([]byte, error) {
	if c.pointer && reflect.ValueOf(v).IsNil() {
		return nil, nil
	}
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(&v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (c gobCodec[V]) Unmarshal(data []byte) (V, error) {
	var v, zero V
	if c.pointer && len(data) == 0 {
		return zero, nil
	}
	if err := gob.NewDecoder(bytes.NewReader(data)).Decode(&v); err != nil {
		return zero, err
	}
	return v, nil
}

// Check makes gobCodec a Checker.
func (gobCodec[V]) Check() error {
	t := reflect.TypeFor[V]()
	if l := (gobCheck{}).value(t, pathOf(t)); l != nil {
		return l.lossyError("gob", "GobEncode and GobDecode")
	}
	return nil
}

var (
	gobMethods = methodPair{
		reflect.TypeFor[gob.GobEncoder](), reflect.TypeFor[gob.GobDecoder](), "GobEncode", "GobDecode",
	}
	binaryMethods = methodPair{
		reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.BinaryUnmarshaler](), "MarshalBinary", "UnmarshalBinary",
	}
)

// gobCheck has the types that have been looked at, so that recursive ones end.
type gobCheck map[reflect.Type]bool

func (c gobCheck) value(t reflect.Type, path string) *loss {
	if c[t] {
		return nil
	}
	c[t] = true
	for _, pair := range []methodPair{gobMethods, binaryMethods} {
		// Gob takes the address of a copy where it needs one.
		if carried, lost := pair.carries(t, path, true); carried || lost != nil {
			return lost
		}
	}
	switch t.Kind() {
	case reflect.Interface:
		return &loss{path: path, why: "it is an interface, and gob carries only what every replica has given to gob.Register", out: "use a concrete type"}
	case reflect.Chan, reflect.Func, reflect.UnsafePointer:
		return &loss{path: path, why: fmt.Sprintf("it is a %s, which gob does not carry", t.Kind()), out: "leave it out"}
	case reflect.Slice, reflect.Array:
		return c.value(t.Elem(), path+"[]")
	case reflect.Pointer:
		return c.value(t.Elem(), path)
	case reflect.Map:
		if lost := c.value(t.Key(), path+"[key]"); lost != nil {
			return lost
		}
		return c.value(t.Elem(), path+"[]")
	case reflect.Struct:
		return c.fields(t, path)
	}
	return nil
}

func (c gobCheck) fields(t reflect.Type, path string) *loss {
	exported := 0
	for i := range t.NumField() {
		f := t.Field(i)
		path := path + "." + f.Name
		if !f.IsExported() {
			if f.Type.Size() == 0 {
				continue // it has nothing to lose
			}
			return &loss{path: path, why: "it is not exported", out: "export it"}
		}
		exported++
		if f.Type.Kind() == reflect.Pointer {
			elem := f.Type.Elem()
			own := reflect.PointerTo(elem).Implements(gobMethods.marshaler) || reflect.PointerTo(elem).Implements(binaryMethods.marshaler)
			if own || elem.Kind() != reflect.Struct {
				return &loss{path: path, why: "gob leaves out zero values, and a pointer to one arrives as nil"}
			}
		}
		if lost := c.value(f.Type, path); lost != nil {
			return lost
		}
	}
	if exported == 0 {
		return &loss{path: path, why: "gob does not carry a struct without exported fields"}
	}
	return nil
}
