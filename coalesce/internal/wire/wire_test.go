package wire_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

const flight = "foreign-flight-22chars"

// random is a source of test data whose seed a failing test has in its log.
func random(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func someBytes(r *rand.Rand, most int) []byte {
	b := make([]byte, r.IntN(most+1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func same(a, b wire.Outcome) bool {
	return a.Kind == b.Kind && a.Flight == b.Flight && a.Finished == b.Finished && a.Codec == b.Codec &&
		a.Fingerprint == b.Fingerprint && bytes.Equal(a.Payload, b.Payload)
}

func TestAnOutcomeReadsBackAsItWasWritten(t *testing.T) {
	r := random(t)
	for range 2000 {
		want := wire.Outcome{
			Kind:        wire.KindValue + wire.Kind(r.IntN(int(wire.KindForgotten))),
			Flight:      flight,
			Finished:    r.Uint64(),
			Codec:       string(someBytes(r, 255)),
			Fingerprint: r.Uint64(),
			Payload:     someBytes(r, 300),
		}
		got, err := wire.Decode(string(want.Encode()))
		if err != nil || !same(got, want) {
			t.Fatalf("wrote %+v, read %+v, %v", want, got, err)
		}
	}
}

func TestTheFirstBytesKeepTheirPlaceInEveryVersion(t *testing.T) {
	encoded := wire.Outcome{Kind: wire.KindError, Flight: flight}.Encode()
	if want := "\x02\x02" + flight; string(encoded[:24]) != want || len(flight) != wire.FlightIDLen {
		t.Errorf("it begins with %q", encoded[:24])
	}
}

func TestAnotherVersionOrKindIsTooLargeAndKeepsItsFlight(t *testing.T) {
	for _, head := range []string{"\x01\x01", "\x03\x01", "\xff\xff", "\x02\x09"} {
		o, err := wire.Decode(head + flight + "\xffwhatever")
		if err != nil || o.Kind != wire.KindTooLarge || o.Flight != flight {
			t.Errorf("%q: %+v, %v", head, o, err)
		}
	}
}

func TestASignOfLifeTellsTheLeaseUpToAnother(t *testing.T) {
	alive, err := wire.Decode(string(wire.AliveOf(flight, 3*time.Second+999*time.Microsecond).Encode()))
	if err != nil || alive.Kind != wire.KindAlive || alive.Flight != flight || alive.Forgotten() {
		t.Errorf("%+v, %v", alive, err)
	}
	if forgotten, err := wire.Decode(string(alive.Encode()) + "!"); err != nil || !forgotten.Forgotten() || forgotten.Lease(time.Hour) != 3*time.Second {
		t.Errorf("%+v, %v", forgotten, err)
	}
	long := wire.AliveOf(flight, 0)
	long.Payload = bytes.Repeat([]byte{0xff}, 8)
	cut := wire.Outcome{Kind: wire.KindAlive, Flight: flight, Payload: []byte("1234567")}
	if alive.Lease(time.Hour) != 3*time.Second || alive.Lease(time.Second) != time.Second || long.Lease(time.Second) != time.Second || cut.Lease(time.Second) != 0 {
		t.Errorf("%v, %v, %v, %v", alive.Lease(time.Hour), alive.Lease(time.Second), long.Lease(time.Second), cut.Lease(time.Second))
	}
}

func FuzzDecodeOutcome(f *testing.F) {
	f.Add("")
	f.Add("\x02\x01" + strings.Repeat("x", wire.FlightIDLen+16) + "\xff")
	f.Fuzz(func(t *testing.T, s string) {
		o, err := wire.Decode(s)
		if err != nil {
			if err != wire.ErrGarbage || !same(o, wire.Outcome{}) {
				t.Fatalf("%q: %+v, %v", s, o, err)
			}
			return
		}
		if len(o.Flight) != wire.FlightIDLen || o.Kind < wire.KindValue || o.Kind > wire.KindForgotten {
			t.Fatalf("%q became %+v", s, o)
		}
		if s[0] == 2 && wire.Kind(s[1]) <= wire.KindForgotten && string(o.Encode()) != s {
			t.Fatalf("%q is written back as %q", s, o.Encode())
		}
		_, _ = o.RemoteError() // must not panic
		checkStored(t, o)
	})
}

func TestAForgetReadsBackAsItWasWritten(t *testing.T) {
	r := random(t)
	for range 2000 {
		want := wire.Forget{
			Group: string(someBytes(r, 300)), Key: string(someBytes(r, 300)),
		}
		if got, err := wire.DecodeForget(string(want.Encode())); err != nil || got != want {
			t.Fatalf("wrote %+v, read %+v, %v", want, got, err)
		}
	}
}

// FuzzControlMessage hears anything on the control channel.
func FuzzControlMessage(f *testing.F) {
	f.Add(string(wire.Forget{Group: "g", Key: "k"}.Encode()))
	f.Add(string(wire.Forget{Group: "g", Key: "k"}.Encode()) + "more")
	f.Fuzz(func(t *testing.T, message string) {
		forget, err := wire.DecodeForget(message)
		if err != nil {
			if err != wire.ErrGarbage || forget != (wire.Forget{}) {
				t.Fatalf("%q: %+v, %v", message, forget, err)
			}
			return
		}
		if written := string(forget.Encode()); written != message {
			t.Fatalf("%q is written back as %q", message, written)
		}
	})
}
