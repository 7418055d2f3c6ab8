package distributed

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"unsafe"

	"github.com/fleetcall/fleetcall/coalesce"
)

// wireVersion is the first byte of every outcome. The first 24 bytes (version,
// kind, flight id) keep their place in every version, so that an older replica
// can tell whose outcome it cannot read.
const wireVersion = 1

// kind is the second byte of an outcome.
type kind byte

const (
	kindValue     kind = 1 + iota // payload: the value, by the named codec
	kindError                     // payload: wireError
	kindPanic                     // payload: wireError
	kindAbandoned                 // no outcome will come: join again
	kindTooLarge                  // no replica but the leader can have it: run your own
	kindNotice                    // the outcome is stored: fetch it; payload: its size, in 8 bytes, big endian
)

const (
	finishedAtByte = 2 + flightIDLen
	headerLen      = finishedAtByte + 8 + 1
)

// outcome is what a flight came to, as it travels: version, kind, flight id,
// when it finished (8 bytes, big endian), length of the codec's name, that name,
// payload.
type outcome struct {
	kind     kind
	flight   string
	finished uint64 // when the function ended, in µs of Redis' clock, about; 0: not known
	codec    string
	payload  []byte
}

// wireError is the payload of kindError and kindPanic.
type wireError struct {
	Message string   `json:"message"`
	Names   []string `json:"names,omitempty"`
}

var errGarbage = errors.New("fleetcall: not an outcome")

func (o outcome) encode() []byte {
	b := make([]byte, 0, headerLen+len(o.codec)+len(o.payload))
	b = append(b, wireVersion, byte(o.kind))
	b = append(b, o.flight...)
	b = binary.BigEndian.AppendUint64(b, o.finished)
	b = append(b, byte(len(o.codec)))
	b = append(b, o.codec...)
	return append(b, o.payload...)
}

// noticeOf returns the notice of an outcome that has so many bytes.
func noticeOf(o outcome, bytes int) outcome {
	return outcome{kind: kindNotice, flight: o.flight, finished: o.finished, payload: binary.BigEndian.AppendUint64(nil, uint64(bytes))}
}

// size returns the size that a notice tells, up to most; 0: none.
func (o outcome) size(most int) int {
	if len(o.payload) != 8 {
		return 0
	}
	return int(min(binary.BigEndian.Uint64(o.payload), uint64(most)))
}

// decodeOutcome reads what encode wrote. The payload shares s's memory, which
// nothing else must hold. A version or kind from the future is a kindTooLarge.
func decodeOutcome(s string) (outcome, error) {
	if len(s) < finishedAtByte || s[0] == 0 || s[1] == 0 {
		return outcome{}, errGarbage
	}
	o := outcome{kind: kind(s[1]), flight: s[2:finishedAtByte]}
	if s[0] != wireVersion || o.kind > kindNotice {
		o.kind = kindTooLarge
		return o, nil
	}
	if len(s) < headerLen {
		return outcome{}, errGarbage
	}
	payload := headerLen + int(s[headerLen-1])
	if payload > len(s) {
		return outcome{}, errGarbage
	}
	o.finished = binary.BigEndian.Uint64([]byte(s[finishedAtByte : headerLen-1]))
	o.codec = s[headerLen:payload]
	if rest := s[payload:]; rest != "" {
		o.payload = unsafe.Slice(unsafe.StringData(rest), len(rest))
	}
	return o, nil
}

func errorOutcome(k kind, flight string, err error) outcome {
	// A RemoteError from a nested group keeps the names it came with, known
	// here or not.
	names := coalesce.ErrorNames(err)
	var remote *coalesce.RemoteError
	if errors.As(err, &remote) {
		names = append(names, remote.Names...)
	}
	payload, _ := json.Marshal(wireError{Message: err.Error(), Names: names}) // strings cannot fail
	return outcome{kind: k, flight: flight, payload: payload}
}

// remoteError returns the error that o carries.
func (o outcome) remoteError() (error, error) {
	var w wireError
	if err := json.Unmarshal(o.payload, &w); err != nil {
		return nil, fmt.Errorf("fleetcall: decoding an error: %w", err)
	}
	return &coalesce.RemoteError{Message: w.Message, Names: w.Names}, nil
}
