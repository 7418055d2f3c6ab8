package distributed_test

import (
	"context"
	"reflect"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// foreignFlight is the id of a flight whose leader is this test.
const foreignFlight = "foreign-flight-22chars"

// foreign is an outcome without a payload, as the replica that led foreignFlight would
// send it.
func foreign(kind wire.Kind) string {
	return string(wire.Outcome{Kind: kind, Flight: foreignFlight}.Encode())
}

// foreignLease makes key led by a replica that this test plays.
func (f *fleet[V]) foreignLease(key string, ttl time.Duration) {
	f.t.Helper()
	f.set("fleetcall:test:{"+key+"}:lease", "0"+foreignFlight+" 1 0 elsewhere", ttl)
}

func (f *fleet[V]) set(key, value string, ttl time.Duration) {
	f.t.Helper()
	if err := f.client().Set(context.Background(), key, value, ttl).Err(); err != nil {
		f.t.Fatal(err)
	}
}

// foreignOutcome is a string as the replica that led foreignFlight would send it.
func foreignOutcome(codec, payload string) string { return foreignOutcomeAt(0, codec, payload) }

// foreignOutcomeAt is the same, of a flight that finished then, in µs of Redis'
// clock.
func foreignOutcomeAt(finished uint64, codec, payload string) string {
	return string(wire.Outcome{
		Kind: wire.KindValue, Flight: foreignFlight, Finished: finished,
		Codec: codec, Fingerprint: wire.Fingerprint(reflect.TypeFor[string]()), Payload: []byte(payload),
	}.Encode())
}
