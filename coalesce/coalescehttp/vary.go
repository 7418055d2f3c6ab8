package coalescehttp

import (
	"net/http"
	"slices"
	"strings"
)

const (
	maxVary      = 32   // fields that Vary may name
	maxVaryBytes = 1024 // and the length of all their names
)

// vary returns the fields of the request that an answer with this header depends on,
// canonical and sorted.
func (q *request) vary(header http.Header) []string {
	names, _ := varyOf(regular(header))
	return names
}

// varyOf returns the fields that the header of an answer says it depends on. ok is false
// when it depends on more than them, or on more than is remembered.
//
// An encoded answer depends on Accept-Encoding, though servers forget to say so. One for
// the scripts of one origin depends on Origin, which is part of every key.
func varyOf(header http.Header) (names []string, ok bool) {
	length := 0
	for _, value := range header["Vary"] {
		for name := range strings.SplitSeq(value, ",") {
			name = trimSpace(name)
			if name == "" {
				continue // RFC 9110, §5.6.1.2
			}
			if length += len(name); name == "*" || !isToken(name) || length > maxVaryBytes {
				return nil, false
			}
			names = append(names, http.CanonicalHeaderKey(name))
		}
	}
	if len(header["Content-Encoding"]) > 0 {
		names = append(names, "Accept-Encoding")
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) > maxVary {
		return nil, false
	}
	return names, true
}

// selection returns a digest of the values that the request has for these fields: the
// same for requests that an answer with this Vary is for.
func (q *request) selection(vary []string) string {
	if len(vary) == 0 {
		return ""
	}
	return digest(q.appendFields(nil, vary))
}

// appendFields appends the names and values of fields. A field that is not there is not
// the same as one that is empty (RFC 9111, §4.1).
func (q *request) appendFields(b []byte, names []string) []byte {
	for _, name := range names {
		b = appendString(b, name)
		b = appendStrings(b, q.values(name))
	}
	return b
}

// values returns the values of a field, each as it was sent but for space that means
// nothing. Values in several lines are not joined: a server may look at the first alone.
func (q *request) values(name string) []string {
	if name == "Host" {
		return nil // part of every key
	}
	values := q.r.Header[name]
	if q.irregular {
		values = regular(q.r.Header)[name]
	}
	normal := make([]string, len(values))
	for i, value := range values {
		normal[i] = trimSpace(value)
		switch name {
		case "Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language":
			normal[i] = withoutListSpace(normal[i])
		}
	}
	return normal
}

// withoutListSpace removes the space around commas and semicolons that are not quoted.
func withoutListSpace(value string) string {
	if !strings.ContainsAny(value, " \t") {
		return value
	}
	elements := splitOutsideQuotes(value, ',')
	for i, element := range elements {
		parameters := splitOutsideQuotes(element, ';')
		for j, p := range parameters {
			parameters[j] = trimSpace(p)
		}
		elements[i] = strings.Join(parameters, ";")
	}
	return strings.Join(elements, ",")
}

// regular returns a header with its names in canonical form: the same one, if they are.
// Handlers and clients may set others, and servers get them as they are.
func regular(header http.Header) http.Header {
	irregular := false
	for name := range header {
		if http.CanonicalHeaderKey(name) != name {
			irregular = true
			break
		}
	}
	if !irregular {
		return header
	}
	names := make([]string, 0, len(header))
	for name := range header {
		names = append(names, name)
	}
	slices.Sort(names)
	all := make(http.Header, len(header))
	for _, name := range names {
		canonical := http.CanonicalHeaderKey(name)
		all[canonical] = append(all[canonical], header[name]...)
	}
	return all
}
