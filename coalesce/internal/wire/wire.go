// Package wire turns what replicas tell each other into bytes and back: the
// outcome of a flight, its errors, the structure of the results' type, and the
// notices on the control channel.
//
// It is a room of its own because it must not trust what it reads: the bytes come
// from replicas of other versions, and from anybody else who can write to Redis.
// So it knows no Redis, no flight and no lease, and each of its decoders is fuzzed
// alone.
package wire

import (
	"encoding/binary"
	"errors"
	"time"
	"unsafe"
)

// version is the first byte of everything that is encoded. The first 24 bytes of an
// outcome (version, kind, flight id) keep their place in every version, so that an
// older replica can tell whose outcome it cannot read. Version 2 brought the
// fingerprint, and errors with their types.
const version = 2

// FlightIDLen is the length of a flight's id, in bytes.
const FlightIDLen = 22

// Kind says what an outcome is: its second byte.
type Kind byte

// The kinds.
const (
	KindValue     Kind = 1 + iota // payload: the value, by the named codec
	KindError                     // payload: an error, see ErrorOutcome
	KindPanic                     // payload: an error that tells of the panic
	KindAbandoned                 // no outcome will come: join again
	KindTooLarge                  // no replica but the leader can have it: run your own
	KindNotice                    // the payload of the outcome is stored in pieces: fetch them; see Stored
	KindAlive                     // no outcome, but a sign that the flight runs; payload: its lease's TTL, see AliveOf
	KindForgotten                 // no outcome: the key was forgotten, by the Fleet that the flight's id begins with
)

const (
	finishedAtByte    = 2 + FlightIDLen
	fingerprintAtByte = finishedAtByte + 8
	codecAtByte       = fingerprintAtByte + 8
	headerLen         = codecAtByte + 1
)

// ErrGarbage is returned for bytes that no version has written.
var ErrGarbage = errors.New("fleetcall: these bytes are no message of a replica")

// Outcome is what a flight came to, as it travels: version, kind, flight id, when
// it finished, fingerprint (both 8 bytes, big endian), length of the codec's name,
// that name, payload.
type Outcome struct {
	Kind        Kind
	Flight      string // FlightIDLen bytes
	Finished    uint64 // when the function ended, in µs of Redis' clock, about; 0: not known
	Codec       string // the name of the value's codec, up to 255 bytes
	Fingerprint uint64 // of the value's type: only the same can decode it; 0 with other kinds
	Payload     []byte
}

// Encode returns the bytes that Decode reads.
func (o Outcome) Encode() []byte {
	b := make([]byte, 0, headerLen+len(o.Codec)+len(o.Payload))
	b = append(b, version, byte(o.Kind))
	b = append(b, o.Flight...)
	b = binary.BigEndian.AppendUint64(b, o.Finished)
	b = binary.BigEndian.AppendUint64(b, o.Fingerprint)
	b = append(b, byte(len(o.Codec)))
	b = append(b, o.Codec...)
	return append(b, o.Payload...)
}

// AliveOf returns the message that a flight runs, and has a lease for so long, in whole
// milliseconds. A byte more at its end says that its key was forgotten.
func AliveOf(flight string, lease time.Duration) Outcome {
	return Outcome{Kind: KindAlive, Flight: flight, Payload: binary.BigEndian.AppendUint64(nil, uint64(lease.Milliseconds()))}
}

// Lease returns for how long the flight of a KindAlive has a lease, up to most; 0: that is not
// known.
func (o Outcome) Lease(most time.Duration) time.Duration {
	if len(o.Payload) < 8 {
		return 0
	}
	return time.Duration(min(binary.BigEndian.Uint64(o.Payload), uint64(most.Milliseconds()))) * time.Millisecond
}

// Forgotten says whether the key of the flight of a KindAlive was forgotten while it ran.
func (o Outcome) Forgotten() bool { return len(o.Payload) > 8 }

// Decode reads what Encode wrote. The payload shares s's memory, which nothing else
// must hold; the flight and the codec's name share it too, and are to be cloned
// where they are kept. An outcome of another version, or of a kind that is not
// known, is a KindTooLarge of its flight. The error is ErrGarbage.
func Decode(s string) (Outcome, error) {
	if len(s) < finishedAtByte || s[0] == 0 || s[1] == 0 {
		return Outcome{}, ErrGarbage
	}
	o := Outcome{Kind: Kind(s[1]), Flight: s[2:finishedAtByte]}
	if s[0] != version || o.Kind > KindForgotten {
		o.Kind = KindTooLarge
		return o, nil
	}
	if len(s) < headerLen {
		return Outcome{}, ErrGarbage
	}
	payload := headerLen + int(s[codecAtByte])
	if payload > len(s) {
		return Outcome{}, ErrGarbage
	}
	o.Finished = binary.BigEndian.Uint64([]byte(s[finishedAtByte:fingerprintAtByte]))
	o.Fingerprint = binary.BigEndian.Uint64([]byte(s[fingerprintAtByte:codecAtByte]))
	o.Codec = s[headerLen:payload]
	if rest := s[payload:]; rest != "" {
		o.Payload = unsafe.Slice(unsafe.StringData(rest), len(rest))
	}
	return o, nil
}
