package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// batchResult is what DoMany returned.
type batchResult struct {
	results map[string]coalesce.Result[string]
	err     error
}

// doMany calls DoMany on a goroutine of its own.
func doMany(ctx context.Context, g coalesce.Group[string], keys []string, fn func(context.Context, []string) (map[string]string, error)) <-chan batchResult {
	done := make(chan batchResult, 1)
	go func() {
		results, err := g.DoMany(ctx, keys, fn)
		done <- batchResult{results, err}
	}()
	return done
}

// batchFn is a function of a batch that says what it was called for, and waits to be told to
// return.
type batchFn struct {
	began   chan []string
	release chan struct{}
	ctx     context.Context // of the last call; to be read after began
}

func newBatchFn() *batchFn {
	return &batchFn{began: make(chan []string, 100), release: make(chan struct{})}
}

func (b *batchFn) run(ctx context.Context, keys []string) (map[string]string, error) {
	b.ctx = ctx
	b.began <- keys
	<-b.release
	return allOf(keys), nil
}

func allOf(keys []string) map[string]string {
	vals := map[string]string{}
	for _, key := range keys {
		vals[key] = "of " + key
	}
	return vals
}

// atOnce returns a value for each key.
func atOnce(_ context.Context, keys []string) (map[string]string, error) { return allOf(keys), nil }

// wantRoles fails the test unless every key has its value and that role.
func (r batchResult) wantRoles(t *testing.T, keys []string, role coalesce.Role) {
	t.Helper()
	if r.err != nil || len(r.results) != len(keys) {
		t.Fatalf("%d results, error %v", len(r.results), r.err)
	}
	for _, key := range keys {
		if got := r.results[key]; got != (coalesce.Result[string]{Val: "of " + key, Role: role}) {
			t.Errorf("%s: %+v, want %v", key, got, role)
		}
	}
}

func TestABatchTakesTwoRoundTripsAndOneCommandWhereItFollowsHotKeys(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 2)
	f.warm()
	keys := numbered("k", 100)
	a, b := f.groups[0], f.groups[1]

	// Who encodes results for 10 ms, as a busy machine may, sends what there is: not every time.
	eventually(t, "cold keys take a script for the joins, and one for the finishes", func() bool {
		f.resetCommands()
		(<-doMany(context.Background(), a, keys, atOnce)).wantRoles(t, keys, coalesce.Leader)
		f.quiet()
		n := f.commands()
		return n["evalsha"] == 2 && len(n) == 1
	})

	for _, hot := range []bool{false, true} {
		fn := newBatchFn()
		leader := doMany(context.Background(), a, keys, fn.run)
		<-fn.began
		joined := f.joins.Load()
		f.resetCommands()
		follower := doMany(context.Background(), b, keys, nil)
		eventually(t, "it has joined", func() bool { return f.joins.Load() == joined+int64(len(keys)) })
		if n := f.commands(); hot && (n["evalsha"] != 1 || len(n) != 1) {
			t.Errorf("hot keys: want one script; sent %v", n)
		}
		for _, key := range keys {
			f.waitSubscribers(key, 1)
		}
		close(fn.release)
		(<-leader).wantRoles(t, keys, coalesce.Leader)
		(<-follower).wantRoles(t, keys, coalesce.RemoteFollower)
		f.quiet()
	}
}

// warm has Redis know the scripts of batches, and every replica its time.
func (f *fleet[V]) warm() {
	f.t.Helper()
	f.settled()
	fn := func(_ context.Context, keys []string) (map[string]V, error) { return map[string]V{}, nil }
	if _, err := f.groups[0].DoMany(context.Background(), []string{"warm-1", "warm-2"}, fn); err != nil {
		f.t.Fatal(err)
	}
	f.quiet()
}

// waitSubscribers waits until so many replicas have the key's channel.
func (f *fleet[V]) waitSubscribers(key string, n int) {
	f.t.Helper()
	eventually(f.t, "followers are subscribed", func() bool { return f.numSub(key) >= n })
}

// TestAFunctionWaitsForNoKeyThatItsBatchFollows has three batches, each of which follows a
// key of the one before, and none of which ends before the last has begun.
func TestAFunctionWaitsForNoKeyThatItsBatchFollows(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 2)
	fn := newBatchFn()
	var batches []<-chan batchResult
	for i, keys := range [][]string{{"a", "b"}, {"c", "b"}, {"d", "c", "a"}} {
		batches = append(batches, doMany(context.Background(), f.groups[i%2], keys, fn.run))
		want := [][]string{{"a", "b"}, {"c"}, {"d"}}[i]
		if got := <-fn.began; !slices.Equal(got, want) {
			t.Errorf("the function was called for %q, not %q", got, want)
		}
	}
	close(fn.release)
	first, second, third := <-batches[0], <-batches[1], <-batches[2]
	first.wantRoles(t, []string{"a", "b"}, coalesce.Leader)
	for key, want := range map[string]coalesce.Role{"c": coalesce.Leader, "b": coalesce.RemoteFollower} {
		if got := second.results[key]; got.Role != want || got.Val != "of "+key {
			t.Errorf("the second's %s: %+v", key, got)
		}
	}
	for key, want := range map[string]coalesce.Role{"d": coalesce.Leader, "c": coalesce.RemoteFollower, "a": coalesce.LocalFollower} {
		if got := third.results[key]; got.Role != want || got.Val != "of "+key {
			t.Errorf("the third's %s: %+v", key, got)
		}
	}
	if s := f.groups[0].Stats().Distributed; s.Batches != 2 || s.BatchRuns != 2 || s.BatchKeys != 3 {
		t.Errorf("counted as %+v", s.TierStats)
	}
}

// TestEachKeyOfABatchHasItsOwnOutcomeOnEveryReplica has one that fails, one without a
// result, one that is too large, one that no codec takes, and one that is well.
func TestEachKeyOfABatchHasItsOwnOutcomeOnEveryReplica(t *testing.T) {
	t.Parallel()
	sentinel := errors.New("a sentinel of batches")
	coalesce.RegisterError("batch-sentinel", sentinel)
	f := newFleet[string](t, 2, distributed.WithPayloadLimit(1024), distributed.WithInlineLimit(512), distributed.WithCodec(fussy{coalesce.JSON[string]()}))
	keys := []string{"well", "fails", "missing", "large", "refused"}
	fn := newBatchFn()
	leader := doMany(context.Background(), f.groups[0], keys, func(ctx context.Context, keys []string) (map[string]string, error) {
		_, _ = fn.run(ctx, keys)
		return map[string]string{"well": "of well", "fails": "beside an error", "large": strings.Repeat("x", 2000), "refused": refused},
			fmt.Errorf("wrapped: %w", coalesce.BatchError{"fails": sentinel})
	})
	<-fn.began
	own := make(chan []string, 10)
	joined := f.joins.Load()
	follower := doMany(context.Background(), f.groups[1], keys, func(_ context.Context, keys []string) (map[string]string, error) {
		own <- keys
		return allOf(keys), nil
	})
	eventually(t, "it has joined", func() bool { return f.joins.Load() == joined+int64(len(keys)) })
	for _, key := range keys {
		f.waitSubscribers(key, 1)
	}
	close(fn.release)
	got := <-leader
	for key, want := range map[string]error{"well": nil, "fails": sentinel, "missing": coalesce.ErrNoResult, "large": nil, "refused": nil} {
		if r := got.results[key]; r.Role != coalesce.Leader || !errors.Is(r.Err, want) || r.Err != nil && r.Val != "" {
			t.Errorf("the leader's %s: %+v", key, r)
		}
	}
	theirs := <-follower
	for key, want := range map[string]coalesce.Result[string]{
		"well": {Val: "of well", Role: coalesce.RemoteFollower}, "fails": {Err: sentinel, Role: coalesce.RemoteFollower},
		"missing": {Err: coalesce.ErrNoResult, Role: coalesce.RemoteFollower},
		"large":   {Val: "of large", Role: coalesce.Fallback}, "refused": {Val: "of refused", Role: coalesce.Fallback},
	} {
		if r := theirs.results[key]; r.Role != want.Role || r.Val != want.Val || !errors.Is(r.Err, want.Err) {
			t.Errorf("the follower's %s: %+v, want %+v", key, r, want)
		}
	}
	var ran []string
	for len(own) > 0 {
		ran = append(ran, <-own...)
	}
	if slices.Sort(ran); !slices.Equal(ran, []string{"large", "refused"}) {
		t.Errorf("the follower ran its own function for %q", ran)
	}
}

// fussy is a codec that does not take one value.
type fussy struct{ coalesce.Codec[string] }

const refused = "refused by the codec"

func (r fussy) Marshal(v string) ([]byte, error) {
	if v == refused {
		return nil, errors.New(refused)
	}
	return r.Codec.Marshal(v)
}

func TestABatchTakesWhatMaxAgeHasKept(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 1, distributed.WithMaxAge(time.Hour))
	g := f.groups[0]
	first := []string{"a", "b"}
	(<-doMany(context.Background(), g, first, atOnce)).wantRoles(t, first, coalesce.Leader)
	f.quiet()
	got := <-doMany(context.Background(), g, []string{"a", "new", "b"}, atOnce)
	for key, role := range map[string]coalesce.Role{"a": coalesce.Cached, "new": coalesce.Leader, "b": coalesce.Cached} {
		if r := got.results[key]; r.Role != role || r.Val != "of "+key || r.Err != nil {
			t.Errorf("%s: %+v", key, r)
		}
	}
	if err := g.Forget(context.Background(), "a", "new"); err != nil {
		t.Fatal(err)
	}
	got = <-doMany(context.Background(), g, []string{"a", "new", "b"}, atOnce)
	for key, role := range map[string]coalesce.Role{"a": coalesce.Leader, "new": coalesce.Leader, "b": coalesce.Cached} {
		if r := got.results[key]; r.Role != role || r.Err != nil {
			t.Errorf("after Forget, %s: %+v", key, r)
		}
	}
}

func TestACallerThatLeavesABatchLeavesAllItsKeys(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 2)
	ctx, cancel := context.WithCancel(context.Background())
	other := newBatchFn()
	theirs := doMany(context.Background(), f.groups[1], []string{"theirs"}, other.run)
	<-other.began
	fn := newBatchFn()
	keys := append(numbered("k", 20), "theirs")
	batch := doMany(ctx, f.groups[0], keys, fn.run)
	<-fn.began
	cancel()
	got := <-batch
	if got.err != context.Canceled || len(got.results) != len(keys) {
		t.Errorf("%d results, %v", len(got.results), got.err)
	}
	for key, r := range got.results {
		want := coalesce.Leader
		if key == "theirs" {
			want = coalesce.RemoteFollower
		}
		if r.Err != context.Canceled || r.Role != want {
			t.Errorf("%s: %+v", key, r)
		}
	}
	<-fn.ctx.Done()
	close(fn.release)
	close(other.release)
	(<-theirs).wantRoles(t, []string{"theirs"}, coalesce.Leader)
	f.quiet()
}

func TestABatchOfAFleetThatIsClosedGetsErrClosedForEachKey(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 1)
	g := f.groups[0]
	if err := g.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	got := <-doMany(context.Background(), g, []string{"a", "b", "a"}, nil)
	if got.err != nil || len(got.results) != 2 || got.results["a"].Err != coalesce.ErrClosed || got.results["b"].Err != coalesce.ErrClosed {
		t.Errorf("%+v", got)
	}
	got = <-doMany(context.Background(), g.With(distributed.WithMaxAge(-1)), []string{"a"}, nil)
	if got.err == nil || got.results["a"].Err != got.err {
		t.Errorf("With an option that makes no sense: %+v", got)
	}
}

// TestABatchOfThousandsOfKeysIsFewCommands has more keys than leave in one round trip. On
// a busy machine the batch takes longer than a third of the default lease: renewals would be
// counted too.
func TestABatchOfThousandsOfKeysIsFewCommands(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 1, distributed.WithLeaseTTL(10*patience))
	f.warm()
	f.resetCommands()
	keys := numbered("k", 3000)
	(<-doMany(context.Background(), f.groups[0], keys, atOnce)).wantRoles(t, keys, coalesce.Leader)
	f.quiet()
	if n := f.commands(); n["evalsha"] > 2*(3000/128+3) || len(n) != 1 {
		t.Errorf("sent %v", n)
	}
}

// TestLeasesOfABatchAreRenewedTogether counts the commands until each has been renewed.
func TestLeasesOfABatchAreRenewedTogether(t *testing.T) {
	t.Parallel()
	renewed := make(renewals, 100)
	f := newFleet[string](t, 1, distributed.WithHooks(renewed), distributed.WithLeaseTTL(4500*time.Millisecond))
	f.warm()
	fn := newBatchFn()
	keys := numbered("k", 100)
	batch := doMany(context.Background(), f.groups[0], keys, fn.run)
	<-fn.began
	f.resetCommands()
	for range keys {
		<-renewed
	}
	if n := f.commands()["evalsha"]; n > 10 {
		t.Errorf("%d commands renewed %d leases", n, len(keys))
	}
	close(fn.release)
	(<-batch).wantRoles(t, keys, coalesce.Leader)
}
