package coalescehttp

import (
	"encoding/binary"
	"errors"
	"net/http"
	"slices"

	"github.com/fleetcall/fleetcall/coalesce"
)

// Codec returns the codec that carries answers: their header in few bytes, and the body
// behind it. The Body of an Answer that Unmarshal returns shares the memory of its bytes.
// Slices and maps that are empty arrive as nil, and the Header as one that is not nil.
func Codec() coalesce.Codec[*Answer] { return codec{} }

type codec struct{}

// errAnswer is of bytes that Marshal has not written.
var errAnswer = errors.New("fleetcall: decoding an answer: these bytes are no HTTP answer")

// Name has the version of the bytes, and of the rules that a replica relies on when it
// takes an answer: change it with either.
func (codec) Name() string { return "http1" }

// Fingerprint makes codec a coalesce.Fingerprinter: its name says which answers it reads.
func (codec) Fingerprint() uint64 { return 1 }

// Marshal writes strings and lists behind their lengths, the header sorted by names, and
// the body last, which needs no length.
func (codec) Marshal(a *Answer) ([]byte, error) {
	if a == nil {
		return nil, errors.New("fleetcall: encoding an answer: it is nil")
	}
	names := make([]string, 0, len(a.Header))
	size := 64 + len(a.Flight) + len(a.Replica) + len(a.Fields) + len(a.Body)
	for name, values := range a.Header {
		names = append(names, name)
		size += len(name) + 4
		for _, value := range values {
			size += len(value) + 3
		}
	}
	slices.Sort(names)
	b := make([]byte, 0, size)
	b = appendString(b, a.Flight)
	b = appendString(b, a.Replica)
	b = appendFailure(b, a.Failure)
	b = appendString(b, string(a.Alone))
	b = appendStrings(b, a.Vary)
	b = appendString(b, a.Fields)
	b = binary.AppendUvarint(b, uint64(a.Status))
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, name := range names {
		b = appendString(b, name)
		b = appendStrings(b, a.Header[name])
	}
	return append(b, a.Body...), nil
}

// Unmarshal trusts nothing: the bytes are from Redis, and others may write there. What it
// allocates is bounded by the length of data. A status that net/http would not write is
// refused, and so is what Marshal would not have written in the same bytes.
func (codec) Unmarshal(data []byte) (*Answer, error) {
	d := decoder{rest: data, ok: true}
	a := &Answer{
		Flight:  d.string(),
		Replica: d.string(),
		Failure: d.failure(),
		Alone:   Reason(d.string()),
		Vary:    d.strings(),
		Fields:  d.string(),
	}
	a.Status = d.number(999)
	a.Header = d.header()
	if !d.ok || len(a.Vary) > maxVary || a.Status < 200 && a.Alone == "" && a.Failure == nil {
		return nil, errAnswer
	}
	if len(d.rest) > 0 {
		a.Body = slices.Clip(d.rest)
	}
	return a, nil
}

// appendFailure writes how many failures there are: none or one.
func appendFailure(b []byte, failure *coalesce.RemoteError) []byte {
	if failure == nil {
		return append(b, 0)
	}
	b = appendString(append(b, 1), failure.Message)
	b = appendStrings(b, failure.Names)
	b = binary.AppendUvarint(b, uint64(len(failure.Typed)))
	for _, typed := range failure.Typed {
		b = appendString(b, typed.Name)
		b = appendString(b, string(typed.JSON))
	}
	return b
}

// decoder reads what Marshal wrote. After the first mistake, it reads nothing.
type decoder struct {
	rest []byte
	ok   bool
}

// number reads one up to the given one, in the only form in which it is written.
func (d *decoder) number(most int) int {
	n, size := binary.Uvarint(d.rest)
	if !d.ok || size <= 0 || n > uint64(most) || size > 1 && d.rest[size-1] == 0 {
		d.ok, d.rest = false, nil
		return 0
	}
	d.rest = d.rest[size:]
	return int(n)
}

func (d *decoder) string() string {
	n := d.number(len(d.rest))
	if n > len(d.rest) {
		d.ok, d.rest = false, nil
		return ""
	}
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) strings() []string {
	n := d.number(len(d.rest)) // each has at least the byte of its length
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = d.string()
	}
	return list
}

func (d *decoder) failure() *coalesce.RemoteError {
	if d.number(1) == 0 {
		return nil
	}
	failure := &coalesce.RemoteError{Message: d.string(), Names: d.strings()}
	for range d.number(len(d.rest) / 2) {
		if !d.ok {
			break
		}
		failure.Typed = append(failure.Typed, coalesce.TypedError{Name: d.string(), JSON: []byte(d.string())})
	}
	return failure
}

func (d *decoder) header() http.Header {
	n := d.number(len(d.rest) / 2)          // each has at least the bytes of two lengths
	header := make(http.Header, min(n, 64)) // so that a lie about the number costs nothing
	last := ""
	for i := range n {
		name := d.string()
		if i > 0 && name <= last {
			d.ok, d.rest = false, nil
		}
		if !d.ok {
			break
		}
		header[name] = d.strings()
		last = name
	}
	return header
}
