package distributed_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

func TestMaxAgeServesAFinishedValueUntilItIsTooOldOrForgotten(t *testing.T) {
	f := newFleet[int64](t, 2, distributed.WithMaxAge(time.Hour))
	var runs atomic.Int64
	do := func(replica int) (int64, coalesce.Role) {
		t.Helper()
		v, role, err := f.groups[replica].Do(context.Background(), "k", func(context.Context) (int64, error) { return runs.Add(1), nil })
		if err != nil {
			t.Fatal(err)
		}
		return v, role
	}
	do(0)
	f.quiet()
	for replica := range 2 {
		if v, role := do(replica); v != 1 || role != coalesce.Cached {
			t.Errorf("replica %d: %d as %v", replica, v, role)
		}
	}
	if err := f.groups[1].Forget(context.Background(), "k"); err != nil {
		t.Fatal(err)
	}
	if v, role := do(0); v != 2 || role != coalesce.Leader {
		t.Errorf("after Forget: %d as %v", v, role)
	}
	f.quiet()
	// Redis' clock says when it finished: make it long ago.
	if n := f.client().HSet(context.Background(), "fleetcall:test:{k}:latest", "finished", 1).Val(); n != 0 {
		t.Fatal("nothing was kept")
	}
	if v, role := do(1); v != 3 || role != coalesce.Leader {
		t.Errorf("past MaxAge: %d as %v", v, role)
	}
}

// fetchSlack is longer before a function's end than a command takes on its way:
// what is fetched is known to have ended to that, and those who came later get
// a flight of their own.
const fetchSlack = 100 * time.Millisecond

func TestOutcomesOfEverySizeArrive(t *testing.T) {
	t.Parallel()
	const inline, payload = 1000, 100_000
	f := newFleet[[]byte](t, 2, distributed.WithInlineLimit(inline), distributed.WithPayloadLimit(payload))
	for _, size := range []int{0, 1, inline - 1, inline, inline + 1, payload - 1, payload, payload + 1} {
		want := bytes.Repeat([]byte{0xff}, size)
		var runs atomic.Int32
		key := fmt.Sprint("size ", size)
		answers := f.overlapping(3, key, func(context.Context) ([]byte, error) {
			runs.Add(1)
			if runs.Load() == 1 {
				f.waitFollowers(key, 1)
			}
			time.Sleep(fetchSlack)
			return want, nil
		})
		for _, a := range answers {
			if a.err != nil || !bytes.Equal(a.val, want) {
				t.Errorf("size %d: %d bytes, %v", size, len(a.val), a.err)
			}
		}
		wantRuns, wantRole := int32(1), coalesce.RemoteFollower
		if size > payload {
			wantRuns, wantRole = 2, coalesce.Fallback
		}
		if runs.Load() != wantRuns || roles(answers)[wantRole] != 1 {
			t.Errorf("size %d: %d executions, roles %v", size, runs.Load(), roles(answers))
		}
	}
}

type otherCodec struct{ coalesce.Codec[string] }

func (otherCodec) Name() string { return "other" }

func TestARollingChangeOfTheCodecBreaksNoCall(t *testing.T) {
	f := newFleet[string](t, 1)
	f.join(distributed.WithCodec[string](otherCodec{coalesce.JSON[string]()}))
	f.waitSubscribed(2)
	var runs atomic.Int32
	answers := f.overlapping(2, "k", func(context.Context) (string, error) {
		if runs.Add(1) == 1 {
			eventually(t, "the other replica runs its own", func() bool { return runs.Load() == 2 })
		}
		return "v", nil
	})
	for _, a := range answers {
		if a.val != "v" || a.err != nil {
			t.Errorf("%+v", a)
		}
	}
	if runs.Load() != 2 || roles(answers)[coalesce.Fallback] != 1 {
		t.Errorf("%d executions, roles %v", runs.Load(), roles(answers))
	}
}

func TestGarbageInEveryKeyAndChannelHurtsNobody(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 2)
	ctx := context.Background()
	client := f.client()
	for i, garbage := range []string{"", "garbage", strings.Repeat("x", 100), "\x01\x01", "\x07\x01" + foreignFlight + "\x00", "\x00\x00" + foreignFlight + "\x00"} {
		for _, name := range []string{"lease", "attempts", "latest"} {
			for _, wrongType := range []bool{false, true} {
				key := fmt.Sprintf("k%d%s%v", i, name, wrongType)
				redisKey := "fleetcall:test:{" + key + "}:" + name
				if wrongType {
					client.LPush(ctx, redisKey, garbage)
				} else {
					client.Set(ctx, redisKey, garbage, 0)
				}
				var runs atomic.Int32
				answers := f.overlapping(3, key, func(context.Context) (string, error) {
					runs.Add(1)
					f.waitFollowers(key, 1)
					client.Publish(ctx, "fleetcall:test:{"+key+"}@0", garbage)
					for _, channel := range controlChannels("fleetcall", client) {
						client.Publish(ctx, channel, garbage)
					}
					return "v", nil
				})
				for _, a := range answers {
					if a.val != "v" || a.err != nil {
						t.Errorf("%s: %+v", key, a)
					}
				}
				if runs.Load() != 1 {
					t.Errorf("%s: %d executions", key, runs.Load())
				}
			}
		}
	}
	if f.groups[0].Stats().Distributed.Garbage == 0 {
		t.Error("garbage is not counted")
	}
}

func TestKeysOfAnyBytesAndLengthAreTheirOwn(t *testing.T) {
	t.Parallel()
	f := newFleet[[]byte](t, 2)
	var every []byte
	for b := range 256 {
		every = append(every, byte(b))
	}
	for _, key := range []string{"", " ", "a\nb", "{", "}", "{}", "}{", "a}b", string(every), strings.Repeat("x", 200), strings.Repeat("x", 201), strings.Repeat("y", 1<<20)} {
		var runs atomic.Int32
		answers := f.overlapping(2, key, func(context.Context) ([]byte, error) {
			runs.Add(1)
			time.Sleep(fetchSlack)
			return []byte(key), nil
		})
		for _, a := range answers {
			if a.err != nil || string(a.val) != key {
				t.Errorf("%.20q: %+v", key, a)
			}
		}
		if runs.Load() != 1 {
			t.Errorf("%.20q: %d executions", key, runs.Load())
		}
	}
}
