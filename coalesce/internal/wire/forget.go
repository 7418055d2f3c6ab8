package wire

// Forget is the notice on a control channel that a key of a group was forgotten. Group and
// key may have any bytes.
type Forget struct{ Group, Key string }

const forgetKind = 'f'

// Encode returns the bytes that DecodeForget reads: version, kind, and the two texts, each
// after its length.
func (f Forget) Encode() []byte {
	b := make([]byte, 0, 2+2*numberLen+len(f.Group)+len(f.Key))
	b = append(b, version, forgetKind)
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
	f := Forget{Group: r.text(), Key: r.text()}
	if !r.ok || r.rest != "" {
		return Forget{}, ErrGarbage
	}
	return f, nil
}
