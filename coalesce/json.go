package coalesce

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"unicode/utf8"
)

// JSON is encoding/json. Its Check refuses a V that JSON would change on the way.
// Everything reachable from V through structs, pointers, slices, arrays and maps
// counts:
//
//   - fields that are not exported, and those with the tag `json:"-"`
//   - fields that JSON leaves out because another has the same name
//   - interfaces (any and error too), channels, functions, complex numbers and
//     unsafe pointers
//   - map keys that are neither strings, nor integers, nor have MarshalText and
//     UnmarshalText
//   - types with only half of a pair of MarshalJSON and UnmarshalJSON, or of
//     MarshalText and UnmarshalText
//   - structs that have both only because they embed a type that has them, such as
//     time.Time: their other fields are left out
//
// A type with such a pair of its own is accepted as it is.
//
// omitempty and omitzero are accepted: what they leave out arrives as the zero
// value that it was. The exception is a slice or a map that is empty but not nil:
// with omitempty it arrives as nil. Programs treat the two alike, and the
// author of the tag has said so. For the same reason a pointer to a nil
// pointer, slice or map is accepted, and arrives as nil, and so does an embedded
// pointer to a struct of which every field is left out.
//
// Some types are accepted though they arrive as an equal value in another form: a
// json.RawMessage without its spaces and with <, > and & escaped (nil as null), an empty
// json.Number as 0, and a time.Time with its offset, but without the name and the rules
// of its time zone, and without its monotonic clock.
//
// Marshal returns an error for what only a value shows: numbers that are infinite
// or not a number, and text that is not UTF-8, which encoding/json would replace
// without a word.
func JSON[V any]() Codec[V] {
	return jsonCodec[V]{pointer: reflect.TypeFor[V]().Kind() == reflect.Pointer}
}

type jsonCodec[V any] struct{ pointer bool }

func (jsonCodec[V]) Name() string { return "json" }

// Marshal encodes by the pointer to v: encoding/json then calls the methods of
// v's pointer, as it does when it decodes. That costs what putting v into an
// interface does, which for a V that is a pointer is nothing.
func (c jsonCodec[V]) Marshal(v V) ([]byte, error) {
	var boxed any
	if c.pointer {
		boxed = v
	} else {
		boxed = addressOf(v)
	}
	data, err := json.Marshal(boxed)
	if err != nil {
		return nil, err
	}
	if replaces(data) {
		if path := invalidText(reflect.ValueOf(boxed), pathOf(reflect.TypeFor[V]())); path != "" {
			return nil, fmt.Errorf("fleetcall: JSON cannot carry %s: it has text that is not UTF-8", path)
		}
	}
	return data, nil
}

func addressOf[V any](v V) any { return &v }

func (jsonCodec[V]) Unmarshal(data []byte) (V, error) {
	var v V
	if err := json.Unmarshal(data, &v); err != nil {
		var zero V
		return zero, err
	}
	return v, nil
}

// Check makes jsonCodec a Checker.
func (jsonCodec[V]) Check() error {
	if l := jsonLoss(reflect.TypeFor[V]()); l != nil {
		return l.lossyError("JSON", "MarshalJSON and UnmarshalJSON")
	}
	return nil
}

// replacement is how encoding/json writes a byte that is not UTF-8. Most of its
// versions write an escape that stands for nothing else, others the character
// U+FFFD itself. Searching the output for it costs next to nothing, and only a
// value that has it is looked through.
var replacement = func() []byte {
	data, err := json.Marshal("\xff")
	if err != nil {
		return []byte("\xff") // such a version refuses it by itself, and never writes it
	}
	return bytes.Trim(data, `"`)
}()

const replacementEscape = `\ufffd`

// replaces says whether the replacement is in data. Data without a backslash is
// done with at once. After the first one, the escape is looked for by its three f in
// a row, at one byte of three: bytes.Contains takes twice as long where there is a
// quotation mark in every line.
func replaces(data []byte) bool {
	if string(replacement) != replacementEscape {
		return bytes.Contains(data, replacement)
	}
	first := bytes.IndexByte(data, '\\')
	if first < 0 {
		return false
	}
	data = data[first:]
	for i := 2; i < len(data)-1; i += 3 {
		if data[i] == 'f' && (data[i-1] == 'f' || data[i+1] == 'f') &&
			bytes.Contains(data[max(i-4, 0):min(i+4, len(data))], replacement) {
			return true
		}
	}
	return false
}

// invalidText returns the path of a text in v that is not UTF-8, or "". v has been
// encoded, and so has no cycle.
func invalidText(v reflect.Value, path string) string {
	if !v.IsValid() || !v.CanInterface() {
		return ""
	}
	if v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		return invalidText(v.Elem(), path)
	}
	if own, found := invalidOwnText(v); own {
		if found {
			return path
		}
		return ""
	}
	switch v.Kind() {
	case reflect.String:
		if !utf8.ValidString(v.String()) {
			return path
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return "" // base64
		}
		for i := range v.Len() {
			if found := invalidText(v.Index(i), fmt.Sprintf("%s[%d]", path, i)); found != "" {
				return found
			}
		}
	case reflect.Map:
		for key, value := range v.Seq2() {
			if found := invalidText(key, path+"[key]"); found != "" {
				return found
			}
			if found := invalidText(value, fmt.Sprintf("%s[%q]", path, fmt.Sprint(key))); found != "" {
				return found
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if found := invalidField(v.Field(i), f, path); found != "" {
				return found
			}
		}
	}
	return ""
}

func invalidField(v reflect.Value, f reflect.StructField, path string) string {
	if f.Tag.Get("json") == "-" {
		return ""
	}
	if f.Anonymous && !f.IsExported() && v.Kind() == reflect.Struct {
		for i := range v.NumField() { // reflect gives its exported fields, but not itself
			if found := invalidField(v.Field(i), v.Type().Field(i), path); found != "" {
				return found
			}
		}
		return ""
	}
	return invalidText(v, path+"."+f.Name)
}

// invalidOwnText is for types that write themselves. What MarshalJSON returns does
// not show whether the replacement character was in the value: it counts as
// invalid. A json.RawMessage arrives as it is.
func invalidOwnText(v reflect.Value) (own, found bool) {
	value := v.Interface()
	if v.CanAddr() {
		value = v.Addr().Interface()
	}
	switch value := value.(type) {
	case json.RawMessage, *json.RawMessage:
		return true, false
	case json.Marshaler:
		data, err := value.MarshalJSON()
		return true, err != nil || replaces(data)
	case encoding.TextMarshaler:
		text, err := value.MarshalText()
		return true, err != nil || !utf8.Valid(text)
	}
	return false, false
}
