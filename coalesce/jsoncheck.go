package coalesce

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

var (
	jsonMethods = methodPair{
		reflect.TypeFor[json.Marshaler](), reflect.TypeFor[json.Unmarshaler](), "MarshalJSON", "UnmarshalJSON",
	}
	textMethods = methodPair{
		reflect.TypeFor[encoding.TextMarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](), "MarshalText", "UnmarshalText",
	}
)

// jsonLoss returns the first part of t that encoding/json would not carry.
func jsonLoss(t reflect.Type) *loss {
	return jsonCheck{}.value(t, pathOf(t), true)
}

// jsonCheck has the types that have been looked at, so that recursive ones end.
type jsonCheck map[checked]bool

func (c jsonCheck) value(t reflect.Type, path string, addressable bool) *loss {
	if c[checked{t, addressable}] {
		return nil
	}
	c[checked{t, addressable}] = true
	for _, pair := range []methodPair{jsonMethods, textMethods} {
		if carried, lost := pair.carries(t, path, addressable); carried || lost != nil {
			return lost
		}
	}
	switch t.Kind() {
	case reflect.Interface:
		return &loss{path: path, why: "it is an interface, and JSON does not say which type is in it", out: "use a concrete type"}
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return &loss{path: path, why: fmt.Sprintf("it is a %s, which JSON does not have", t.Kind()), out: "leave it out"}
	case reflect.Pointer:
		return c.value(t.Elem(), path, true)
	case reflect.Slice:
		return c.value(t.Elem(), path+"[]", true)
	case reflect.Array:
		return c.value(t.Elem(), path+"[]", addressable)
	case reflect.Map:
		if lost := c.key(t.Key(), path+"[key]"); lost != nil {
			return lost
		}
		return c.value(t.Elem(), path+"[]", false)
	case reflect.Struct:
		s := jsonStruct{check: c, addressable: addressable, names: map[string]string{}}
		return s.fields(t, path)
	}
	return nil
}

func (c jsonCheck) key(t reflect.Type, path string) *loss {
	switch t.Kind() {
	case reflect.String,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		_, lost := textMethods.carries(t, path, false)
		return lost
	case reflect.Interface, reflect.Pointer:
		return &loss{path: path, why: fmt.Sprintf("JSON does not give back a map's keys of type %s", t)}
	}
	carried, lost := textMethods.carries(t, path, false)
	if lost == nil && !carried {
		lost = &loss{path: path, why: fmt.Sprintf("JSON has no map keys of type %s, unless it has MarshalText and UnmarshalText", t)}
	}
	return lost
}

// jsonStruct is a JSON object: the fields of a struct, and those of the structs
// that it embeds.
type jsonStruct struct {
	check       jsonCheck
	addressable bool
	names       map[string]string // of the object → the path of the field
	embedding   []reflect.Type
}

func (s *jsonStruct) fields(t reflect.Type, path string) *loss {
	if slices.Contains(s.embedding, t) {
		return &loss{path: path, why: "it embeds itself, and JSON leaves out the inner one"}
	}
	s.embedding = append(s.embedding, t)
	defer func() { s.embedding = s.embedding[:len(s.embedding)-1] }()
	for i := range t.NumField() {
		f := t.Field(i)
		if lost := s.field(f, path+"."+f.Name); lost != nil {
			return lost
		}
	}
	return nil
}

func (s *jsonStruct) field(f reflect.StructField, path string) *loss {
	tag := f.Tag.Get("json")
	name, _, _ := strings.Cut(tag, ",")
	embedded := f.Type
	if embedded.Kind() == reflect.Pointer {
		embedded = embedded.Elem()
	}
	embeds := f.Anonymous && embedded.Kind() == reflect.Struct
	switch {
	case f.Type.Size() == 0 && (tag == "-" || !f.IsExported() && !embeds):
		return nil // such as _ struct{}: it has nothing to lose
	case tag == "-":
		return &loss{path: path, why: `it has the tag json:"-"`, out: "remove the tag"}
	case !f.IsExported() && !embeds:
		return &loss{path: path, why: "it is not exported", out: "export it"}
	case !f.IsExported() && f.Type.Kind() == reflect.Pointer:
		return &loss{path: path, why: "it is an embedded pointer to a struct that is not exported, which JSON cannot fill"}
	}
	if !validName(name) {
		name = ""
	}
	if embeds && name == "" {
		inner := *s
		inner.addressable = s.addressable || f.Type.Kind() == reflect.Pointer
		return inner.fields(embedded, path)
	}
	if name == "" {
		name = f.Name
	}
	if other, taken := s.names[name]; taken {
		return &loss{path: path, why: fmt.Sprintf("JSON knows it by the name %q, and %s too, and leaves out one or both", name, other)}
	}
	s.names[name] = path
	return s.check.value(f.Type, path, s.addressable)
}

// validName says whether encoding/json takes a name from a tag. It ignores others.
func validName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("!#$%&()*+-./:;<=>?@[]^_{|}~ ", r)
	})
}
