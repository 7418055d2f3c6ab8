package distributed_test

import (
	"context"
	"errors"
	"fmt"
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

// foreignHeld is the lease of foreignFlight, which nobody has joined.
func foreignHeld(ttl time.Duration) string {
	return fmt.Sprintf("0%s0000 1 0 %d - elsewhere", foreignFlight, ttl.Milliseconds())
}

// foreignLease makes key led by a replica that this test plays.
func (f *fleet[V]) foreignLease(key string, ttl time.Duration) {
	f.t.Helper()
	f.set("fleetcall:test:{"+key+"}:lease", foreignHeld(ttl), ttl)
}

// foreignDeath counts the death of a leader of key, for so long.
func (f *fleet[V]) foreignDeath(key, flight string, ttl time.Duration) {
	f.t.Helper()
	attempts := "fleetcall:test:{" + key + "}:attempts"
	if err := errors.Join(f.client().HSet(context.Background(), attempts, flight, 1).Err(), f.client().PExpire(context.Background(), attempts, ttl).Err()); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet[V]) set(key, value string, ttl time.Duration) {
	f.t.Helper()
	if err := f.client().Set(context.Background(), key, value, ttl).Err(); err != nil {
		f.t.Fatal(err)
	}
}

// foreignOutcome is a string as the replica that led foreignFlight would send it, whose
// function ends now.
func foreignOutcome(codec, payload string) string {
	return foreignOutcomeAt(redisTime(), codec, payload)
}

// redisTime is what the clock of this machine's Redis shows.
func redisTime() uint64 { return uint64(time.Now().UnixMicro()) }

// foreignOutcomeAt is the same, of a flight that finished then, in µs of Redis'
// clock.
func foreignOutcomeAt(finished uint64, codec, payload string) string {
	return string(wire.Outcome{
		Kind: wire.KindValue, Flight: foreignFlight, Finished: finished,
		Codec: codec, Fingerprint: wire.Fingerprint(reflect.TypeFor[string]()), Payload: []byte(payload),
	}.Encode())
}
