package distributed

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fleetcall/fleetcall/coalesce"
)

func TestAnOutcomeReadsBackAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := outcome{
			kind:     kind(rapid.IntRange(int(kindValue), int(kindNotice)).Draw(t, "kind")),
			flight:   someFlight(),
			finished: rapid.Uint64().Draw(t, "finished"),
			codec:    rapid.StringN(0, 60, 255).Draw(t, "codec"),
			payload:  rapid.SliceOf(rapid.Byte()).Draw(t, "payload"),
		}
		got, err := decodeOutcome(string(want.encode()))
		if err != nil || got.kind != want.kind || got.flight != want.flight || got.finished != want.finished || got.codec != want.codec || !bytes.Equal(got.payload, want.payload) {
			t.Fatalf("wrote %+v, read %+v, %v", want, got, err)
		}
	})
}

func TestAFutureVersionOrKindIsTooLargeAndKeepsItsFlight(t *testing.T) {
	flight := someFlight()
	for _, head := range []string{"\x02\x01", "\xff\xff", "\x01\x07"} {
		o, err := decodeOutcome(head + flight + "\xffwhatever")
		if err != nil || o.kind != kindTooLarge || o.flight != flight {
			t.Errorf("%q: %+v, %v", head, o, err)
		}
	}
}

func FuzzDecodeOutcome(f *testing.F) {
	f.Add("")
	f.Add(string(outcome{kind: kindValue, flight: someFlight(), finished: 1_700_000_000_000_000, codec: "json", payload: []byte("{}")}.encode()))
	f.Add(string(errorOutcome(kindError, someFlight(), errors.New("no")).encode()))
	f.Add("\x01\x01" + strings.Repeat("x", flightIDLen+8) + "\xff")
	f.Fuzz(func(t *testing.T, s string) {
		o, err := decodeOutcome(s)
		if err != nil {
			return
		}
		if len(o.flight) != flightIDLen || o.kind < kindValue || o.kind > kindNotice {
			t.Fatalf("%q became %+v", s, o)
		}
		if s[0] == wireVersion && kind(s[1]) <= kindNotice && string(o.encode()) != s {
			t.Fatalf("%q is written back as %q", s, o.encode())
		}
		_, _ = o.remoteError() // must not panic
	})
}

func TestErrorsOfNestedReplicasKeepTheirNames(t *testing.T) {
	o := errorOutcome(kindError, someFlight(), fmt.Errorf("outer: %w", &coalesce.RemoteError{Message: "inner", Names: []string{"known.elsewhere"}}))
	err, bad := o.remoteError()
	var remote *coalesce.RemoteError
	if bad != nil || !errors.As(err, &remote) || remote.Message != "outer: inner" || len(remote.Names) != 1 || remote.Names[0] != "known.elsewhere" {
		t.Errorf("%+v, %v", err, bad)
	}
}

func TestNoTwoKeysShareANameAndEveryNameHasOneHashTag(t *testing.T) {
	seen := map[string]string{}
	check := func(key string) error {
		k := newKeys("ns", key)
		open, end := strings.IndexByte(k.lease(), '{'), strings.IndexByte(k.lease(), '}')
		if open < 0 || end <= open+1 {
			return fmt.Errorf("%q has no hash tag: %q", key, k.lease())
		}
		tag := k.lease()[open : end+1]
		for _, name := range []string{k.attempts(), k.latest(), k.result(), k.detached(), k.resultOf("f"), k.detachedOf("f"), k.channel()} {
			if !strings.HasPrefix(name, "ns:"+tag) {
				return fmt.Errorf("%q: %q and %q differ in their tag", key, name, k.lease())
			}
		}
		if other, ok := seen[k.lease()]; ok && other != key {
			return fmt.Errorf("%q and %q share %q", key, other, k.lease())
		}
		seen[k.lease()] = key
		return nil
	}
	long := newKeys("", strings.Repeat("x", longestKey+1)).channel()
	for _, key := range []string{"", "}", "{}", "a", "a}b", strings.Repeat("x", longestKey), strings.Repeat("x", longestKey+1), strings.Trim(long, ":{}")} {
		if err := check(key); err != nil {
			t.Error(err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		if err := check(rapid.String().Draw(t, "key")); err != nil {
			t.Fatal(err)
		}
	})
}

func someFlight() string {
	id := newFlightID()
	return string(id[:])
}

func TestTheNamesOfAFlightEndWithItsID(t *testing.T) {
	k := newKeys("ns", "key")
	for got, want := range map[string]string{
		k.channel():              "ns:{key}",
		k.lease():                "ns:{key}:lease",
		k.attempts():             "ns:{key}:attempts",
		k.latest():               "ns:{key}:latest",
		k.result():               "ns:{key}:result:" + k.flight(),
		k.resultOf(k.flight()):   "ns:{key}:result:" + k.flight(),
		k.results():              "ns:{key}:result:",
		k.detached():             "ns:{key}:detached:" + k.flight(),
		k.detachedOf(k.flight()): "ns:{key}:detached:" + k.flight(),
		k.detachments():          "ns:{key}:detached:",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if len(k.flight()) != flightIDLen || k.flight() == newKeys("ns", "key").flight() {
		t.Errorf("the flight is %q", k.flight())
	}
}
