package wire

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/fleetcall/fleetcall/coalesce"
)

// The payload of an error is: the message, the number of names, each name, the
// number of typed errors, each one's name and JSON. Numbers have 4 bytes, big
// endian, and stand before each text as its length, so that a text may have any
// bytes. What comes after it is of a later version, and left alone.
const numberLen = 4

// cutMark ends a message that was cut. It tells the length of the whole.
const cutMark = "… (cut; %d bytes in all)"

// ErrorOutcome returns err as an outcome of this kind whose payload has up to limit
// bytes. It does not panic, even when the methods of err do.
//
// An error that is too large stays one that can be shared: the message is cut, and
// typed errors are left out that would take the room of half of the limit that
// belongs to the message. When not even the names fit, it is a KindTooLarge.
func ErrorOutcome(kind Kind, flight string, err error, limit int) Outcome {
	e := coalesce.NewRemoteError(err)
	room := limit - 3*numberLen
	for _, name := range e.Names {
		room -= numberLen + len(name)
	}
	mark := fmt.Sprintf(cutMark, len(e.Message))
	if room < min(len(mark), len(e.Message)) {
		return Outcome{Kind: KindTooLarge, Flight: flight}
	}
	forMessage := min(len(e.Message), max(limit/2, len(mark)))
	var typed []coalesce.TypedError
	for _, t := range e.Typed {
		if size := 2*numberLen + len(t.Name) + len(t.JSON); size <= room-forMessage {
			typed = append(typed, t)
			room -= size
		}
	}
	e.Typed = typed
	if len(e.Message) > room {
		e.Message = cut(e.Message, room-len(mark)) + mark
	}
	return Outcome{Kind: kind, Flight: flight, Payload: encodeError(e)}
}

// cut returns the first bytes of a message, and does not end within a character.
func cut(message string, length int) string {
	for back := range utf8.UTFMax {
		if length-back <= 0 || utf8.RuneStart(message[length-back]) {
			return message[:max(length-back, 0)]
		}
	}
	return message[:length] // it is not UTF-8
}

func encodeError(e *coalesce.RemoteError) []byte {
	size := 3*numberLen + len(e.Message)
	for _, name := range e.Names {
		size += numberLen + len(name)
	}
	for _, t := range e.Typed {
		size += 2*numberLen + len(t.Name) + len(t.JSON)
	}
	b := make([]byte, 0, size)
	b = appendText(b, e.Message)
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Names)))
	for _, name := range e.Names {
		b = appendText(b, name)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.Typed)))
	for _, t := range e.Typed {
		b = appendText(b, t.Name)
		b = appendText(b, t.JSON)
	}
	return b
}

// RemoteError returns the error that o carries, a *coalesce.RemoteError. The second
// result is ErrGarbage when there is none. The error keeps nothing of the payload's
// memory.
func (o Outcome) RemoteError() (error, error) {
	r := reader{string(o.Payload), true}
	e := &coalesce.RemoteError{Message: r.text()}
	// A number may be a lie: nothing is made for it before it is read.
	for range r.number() {
		if !r.ok {
			break
		}
		e.Names = append(e.Names, r.text())
	}
	for range r.number() {
		if !r.ok {
			break
		}
		e.Typed = append(e.Typed, coalesce.TypedError{Name: r.text(), JSON: []byte(r.text())})
	}
	if !r.ok {
		return nil, fmt.Errorf("fleetcall: decoding an error: %w", ErrGarbage)
	}
	return e, nil
}

func appendText[T ~string | ~[]byte](b []byte, text T) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...)
}

// reader reads numbers and texts until one is not there. From then on it is not ok,
// and all that it reads is empty.
type reader struct {
	rest string
	ok   bool
}

func (r *reader) number() uint32 {
	if !r.ok || len(r.rest) < numberLen {
		r.ok = false
		return 0
	}
	n := binary.BigEndian.Uint32([]byte(r.rest[:numberLen]))
	r.rest = r.rest[numberLen:]
	return n
}

func (r *reader) text() string {
	n := r.number()
	if !r.ok || uint64(n) > uint64(len(r.rest)) {
		r.ok = false
		return ""
	}
	text := r.rest[:n]
	r.rest = r.rest[n:]
	return text
}
