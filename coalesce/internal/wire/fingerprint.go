package wire

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// Fingerprint returns a number of the structure of t: the kinds of its parts, the
// names of types without their package, and the fields of structs, with name, tag
// and order. The same type in the same source has the same number in every binary,
// on every platform and with every version of Go, also when its package moves. A
// field that is added, renamed or of another type makes it another number. It is
// never 0.
//
// Of a type that writes itself, by MarshalJSON and UnmarshalJSON or by MarshalText
// and UnmarshalText, only the name counts: what it writes does not depend on its
// fields. Of a struct that has no exported field, such as sync.Mutex, only the name
// counts too, and of a field that is not exported only its name and type, but not
// what is in a struct there: codecs do not read it, and the standard library
// changes it from version to version.
func Fingerprint(t reflect.Type) uint64 {
	d := description{seen: map[described]int{}}
	d.add(t, true)
	sum := sha256.Sum256([]byte(d.String()))
	return max(binary.BigEndian.Uint64(sum[:]), 1)
}

// Tag returns a word for what a replica must have to read a value: the codec and the
// fingerprint of the type. It has 16 hexadecimal digits.
func Tag(codec string, fingerprint uint64) string {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(codec), fingerprint))
	return hex.EncodeToString(sum[:8])
}

// description is the text that the number is made of.
type description struct {
	strings.Builder
	seen map[described]int // named types, by the order in which they came
}

type described struct {
	t      reflect.Type
	inside bool // with what is in its structs
}

func (d *description) add(t reflect.Type, inside bool) {
	if t == nil {
		d.WriteString("nil")
		return
	}
	if name := nameOf(t); name != "" {
		fmt.Fprintf(d, "%s ", name)
		if writesItself(t) {
			d.WriteString("itself")
			return
		}
		if number, again := d.seen[described{t, inside}]; again {
			fmt.Fprintf(d, "#%d", number)
			return
		}
		d.seen[described{t, inside}] = len(d.seen)
	}
	d.WriteString(t.Kind().String())
	switch t.Kind() {
	case reflect.Array:
		fmt.Fprintf(d, "%d of ", t.Len())
		d.add(t.Elem(), inside)
	case reflect.Pointer, reflect.Slice, reflect.Chan:
		d.WriteString(" of ")
		d.add(t.Elem(), inside)
	case reflect.Map:
		d.WriteString(" from ")
		d.add(t.Key(), inside)
		d.WriteString(" to ")
		d.add(t.Elem(), inside)
	case reflect.Struct:
		if nameOf(t) == "" || inside && !opaque(t) {
			d.fields(t, inside)
		}
	}
}

func (d *description) fields(t reflect.Type, inside bool) {
	d.WriteString("{")
	for i := range t.NumField() {
		f := t.Field(i)
		fmt.Fprintf(d, "%s %q embedded:%t ", f.Name, f.Tag, f.Anonymous)
		// The exported fields of an embedded struct travel, exported or not.
		d.add(f.Type, inside && (f.IsExported() || f.Anonymous))
		d.WriteString(";")
	}
	d.WriteString("}")
}

// opaque says whether a codec sees nothing of what is in a struct.
func opaque(t reflect.Type) bool {
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() || f.Anonymous {
			return false
		}
	}
	return true
}

var (
	// packagePath is what stands before a type's name among the type arguments of
	// a generic one: reflect gives those with their packages' whole paths.
	packagePath = regexp.MustCompile(`[\pL\pN_\-.~%/+!]*\.`)
	// localNumber is how the compiler tells apart types of one name in one package.
	localNumber = regexp.MustCompile(`·\d+`)
)

// nameOf returns the name of t without its package; "" for a type that has none.
func nameOf(t reflect.Type) string {
	name, arguments, generic := strings.Cut(t.Name(), "[")
	if !generic {
		return name
	}
	arguments = localNumber.ReplaceAllString(arguments, "")
	return name + "[" + packagePath.ReplaceAllString(arguments, "")
}

// writesItself says whether a codec such as JSON leaves the writing to t.
func writesItself(t reflect.Type) bool {
	if t.Kind() == reflect.Interface {
		return false
	}
	pointer := reflect.PointerTo(t)
	return pointer.Implements(jsonMarshaler) && pointer.Implements(jsonUnmarshaler) ||
		pointer.Implements(textMarshaler) && pointer.Implements(textUnmarshaler)
}

var (
	jsonMarshaler   = reflect.TypeFor[json.Marshaler]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textMarshaler   = reflect.TypeFor[encoding.TextMarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)
