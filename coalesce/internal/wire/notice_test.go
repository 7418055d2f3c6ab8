package wire_test

import (
	"bytes"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

func TestANoticeTellsAllButThePayload(t *testing.T) {
	for _, kind := range []wire.Kind{wire.KindValue, wire.KindError, wire.KindPanic} {
		outcome := wire.Outcome{Kind: kind, Flight: flight, Finished: 7, Codec: "json", Fingerprint: 9, Payload: make([]byte, 200_000)}
		notice, err := wire.Decode(string(wire.NoticeOf(outcome, 70_000).Encode()))
		if err != nil || notice.Kind != wire.KindNotice || notice.Flight != flight {
			t.Fatalf("%+v, %v", notice, err)
		}
		stored, err := notice.Stored()
		outcome.Payload = nil
		if err != nil || !same(stored.Outcome, outcome) || stored.Bytes != 200_000 || stored.PieceBytes != 70_000 {
			t.Errorf("%+v, %v", stored, err)
		}
	}
}

func TestNoNoticeMakesAReplicaAskForMuch(t *testing.T) {
	value := wire.Outcome{Kind: wire.KindValue, Flight: flight, Payload: make([]byte, 100)}
	tooShort, nothing, noKind, cutOff := wire.NoticeOf(value, 64<<10-1), wire.NoticeOf(value, 64<<10), wire.NoticeOf(value, 64<<10), wire.NoticeOf(value, 64<<10)
	copy(nothing.Payload[1:], make([]byte, 8))
	noKind.Payload[0] = byte(wire.KindNotice)
	cutOff.Payload = cutOff.Payload[:12]
	endless := wire.NoticeOf(value, 64<<10)
	endless.Payload[1] = 1
	for name, notice := range map[string]wire.Outcome{
		"of very short pieces": tooShort, "of no bytes": nothing, "of more bytes than there are": endless,
		"of a notice": noKind, "cut off": cutOff, "none": value,
	} {
		if stored, err := notice.Stored(); err != wire.ErrGarbage {
			t.Errorf("a notice %s: %+v, %v", name, stored, err)
		}
	}
}

func TestPiecesAreAPayloadWhole(t *testing.T) {
	for length, want := range map[int]int{1: 1, 9: 1, 10: 1, 11: 2, 20: 2, 35: 4} {
		payload := someBytes(random(t), 0)
		for i := range length {
			payload = append(payload, byte(i))
		}
		pieces := wire.Pieces(payload, 10)
		if len(pieces) != want || !bytes.Equal(bytes.Join(pieces, nil), payload) {
			t.Errorf("%d bytes: %d pieces", length, len(pieces))
		}
		for i, piece := range pieces[:len(pieces)-1] {
			if len(piece) != 10 || cap(piece) != 10 {
				t.Errorf("piece %d has %d bytes, and room for %d", i, len(piece), cap(piece))
			}
		}
	}
}

// checkStored is for any outcome that was read.
func checkStored(t *testing.T, o wire.Outcome) {
	t.Helper()
	stored, err := o.Stored()
	switch {
	case err != nil && (err != wire.ErrGarbage || stored.Bytes != 0):
		t.Fatalf("%+v: %+v, %v", o, stored, err)
	case err == nil && (o.Kind != wire.KindNotice || stored.Bytes <= 0 || stored.PieceBytes < 64<<10 || stored.Payload != nil || stored.Kind == wire.KindNotice):
		t.Fatalf("%+v: %+v", o, stored)
	}
}
