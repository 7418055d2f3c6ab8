package wire

import "encoding/binary"

// Heat is a notice to all replicas whose Groups are adaptive: these keys have become hot, or
// were forgotten. One without keys says that its sender is there.
type Heat struct {
	Fleet     string // the id of the Fleet that says so
	Forgotten bool   // the keys were forgotten; false: they have become hot
	Keys      []uint64
}

const (
	hotKind          = 'h'
	forgottenHotKind = 'F'
)

// Encode returns the bytes that DecodeHeat reads: version, kind, the Fleet's id after its
// length, and 8 bytes for each key, big endian.
func (h Heat) Encode() []byte {
	b := make([]byte, 0, 2+numberLen+len(h.Fleet)+8*len(h.Keys))
	kind := byte(hotKind)
	if h.Forgotten {
		kind = forgottenHotKind
	}
	b = appendText(append(b, version, kind), h.Fleet)
	for _, key := range h.Keys {
		b = binary.BigEndian.AppendUint64(b, key)
	}
	return b
}

// DecodeHeat reads what Encode wrote. The Fleet's id shares s's memory. All else, a notice of
// another version or kind too, is ErrGarbage.
func DecodeHeat(s string) (Heat, error) {
	if len(s) < 2 || s[0] != version || s[1] != hotKind && s[1] != forgottenHotKind {
		return Heat{}, ErrGarbage
	}
	r := reader{s[2:], true}
	h := Heat{Fleet: r.text(), Forgotten: s[1] == forgottenHotKind}
	if !r.ok || len(r.rest)%8 != 0 {
		return Heat{}, ErrGarbage
	}
	for keys := []byte(r.rest); len(keys) > 0; keys = keys[8:] {
		h.Keys = append(h.Keys, binary.BigEndian.Uint64(keys))
	}
	return h, nil
}
