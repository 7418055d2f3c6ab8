package wire

import (
	"strconv"
	"strings"
)

// Forget is the notice on the control channel that a key of a group was forgotten
// by an instance. Group and key may have any bytes.
type Forget struct {
	Instance, Group, Key string
	Count                Count
}

// Count is the number of a forgotten key, by a counter of the fleet that began then: its
// first key is 1. The zero value is no number.
type Count struct {
	Began int64 // µs of Redis' clock
	N     int64
}

const forgetKind = 'f'

// Encode returns the bytes that DecodeForget reads, but for the count, which the script
// adds at the end: version, kind, and the three texts, each after its length.
func (f Forget) Encode() []byte {
	b := make([]byte, 0, 2+3*numberLen+len(f.Instance)+len(f.Group)+len(f.Key))
	b = append(b, version, forgetKind)
	b = appendText(b, f.Instance)
	b = appendText(b, f.Group)
	return appendText(b, f.Key)
}

// DecodeForget reads what Encode wrote. The texts share s's memory, and are to be
// cloned where they are kept. All else, a notice of another version or kind too, is
// ErrGarbage.
func DecodeForget(s string) (Forget, error) {
	if len(s) < 2 || s[0] != version || s[1] != forgetKind {
		return Forget{}, ErrGarbage
	}
	r := reader{s[2:], true}
	f := Forget{Instance: r.text(), Group: r.text(), Key: r.text()}
	began, n, _ := strings.Cut(r.rest, " ")
	f.Count = Count{Began: r.count(began), N: r.count(n)}
	if !r.ok {
		return Forget{}, ErrGarbage
	}
	return f, nil
}

// count reads a number as the script writes it.
func (r *reader) count(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != text {
		r.ok = false
	}
	return n
}
