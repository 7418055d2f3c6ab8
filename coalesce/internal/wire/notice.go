package wire

import (
	"encoding/binary"
	"math"
)

// minPieceBytes is the length of the shortest piece that a notice may tell, but for the
// last one: it bounds how many pieces anybody can have a replica ask for.
const minPieceBytes = 64 << 10

// Stored is an outcome whose payload is not with it, but stored in pieces of equal
// length, of which the last may be shorter.
type Stored struct {
	Outcome               // without its payload
	Bytes, PieceBytes int // of the payload, and of a piece
}

// noticeLen is the length of a notice's payload: the kind of the outcome, its payload's
// length in 8 bytes, that of a piece in 4, both big endian.
const noticeLen = 1 + 8 + 4

// NoticeOf returns the notice of an outcome whose payload is stored in pieces of so many
// bytes. It says all of the outcome but the payload, so that a replica that can't use it
// need not fetch it.
func NoticeOf(o Outcome, pieceBytes int) Outcome {
	payload := append(make([]byte, 0, noticeLen), byte(o.Kind))
	payload = binary.BigEndian.AppendUint64(payload, uint64(len(o.Payload)))
	o.Kind, o.Payload = KindNotice, binary.BigEndian.AppendUint32(payload, uint32(pieceBytes))
	return o
}

// Stored returns what a notice tells. The error is ErrGarbage for one that no leader
// writes: of an outcome without a payload, of no pieces, or of pieces so short that there
// would be very many.
func (o Outcome) Stored() (Stored, error) {
	if o.Kind != KindNotice || len(o.Payload) != noticeLen {
		return Stored{}, ErrGarbage
	}
	n := binary.BigEndian.Uint64(o.Payload[1:])
	s := Stored{Outcome: o, PieceBytes: int(binary.BigEndian.Uint32(o.Payload[9:]))}
	s.Kind, s.Payload = Kind(o.Payload[0]), nil
	switch {
	case s.Kind != KindValue && s.Kind != KindError && s.Kind != KindPanic:
		return Stored{}, ErrGarbage
	case n == 0 || n > math.MaxInt32 || s.PieceBytes < minPieceBytes:
		return Stored{}, ErrGarbage
	}
	s.Bytes = int(n)
	return s, nil
}

// Pieces returns how many pieces there are.
func (s Stored) Pieces() int { return (s.Bytes + s.PieceBytes - 1) / s.PieceBytes }

// Pieces returns a buffer of a payload's length cut into pieces, which share its memory.
func Pieces(payload []byte, pieceBytes int) (pieces [][]byte) {
	for len(payload) > pieceBytes {
		pieces = append(pieces, payload[:pieceBytes:pieceBytes])
		payload = payload[pieceBytes:]
	}
	return append(pieces, payload)
}
