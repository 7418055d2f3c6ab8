package wire_test

import (
	"reflect"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

func TestANoticeOfHotOrForgottenKeysComesBack(t *testing.T) {
	for _, notice := range []wire.Heat{
		{Fleet: "ABCDEFGH"}, {Fleet: "ABCDEFGH", Keys: []uint64{1, 1 << 63}}, {Fleet: "", Forgotten: true, Keys: []uint64{7}},
	} {
		if got, err := wire.DecodeHeat(string(notice.Encode())); err != nil || !reflect.DeepEqual(got, notice) {
			t.Errorf("%+v, %v, want %+v", got, err, notice)
		}
	}
}

func TestGarbageIsNoNoticeOfHotKeys(t *testing.T) {
	whole := string(wire.Heat{Fleet: "ABCDEFGH", Keys: []uint64{1}}.Encode())
	for _, garbage := range []string{"", "\x02", "\x01" + whole[1:], "\x02x" + whole[2:], whole[:len(whole)-1], whole[:4], string(wire.Forget{Group: "g", Key: "k"}.Encode())} {
		if got, err := wire.DecodeHeat(garbage); err != wire.ErrGarbage {
			t.Errorf("%q: %+v, %v", garbage, got, err)
		}
	}
}

func FuzzHeat(f *testing.F) {
	f.Add(string(wire.Heat{Fleet: "ABCDEFGH", Keys: []uint64{1, 2}}.Encode()))
	f.Fuzz(func(t *testing.T, s string) {
		notice, err := wire.DecodeHeat(s)
		if err == nil && string(notice.Encode()) != s {
			t.Errorf("%q decodes to %+v, which is other bytes", s, notice)
		}
	})
}
