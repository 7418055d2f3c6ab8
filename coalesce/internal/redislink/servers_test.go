package redislink

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

// shape is a Cluster's: the owners of the halves of its slots.
type shape struct {
	mu      sync.Mutex
	masters [2]string
}

func (s *shape) slots(context.Context) ([]redis.ClusterSlot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []redis.ClusterSlot{
		{Start: 0, End: 8191, Nodes: []redis.ClusterNode{{Addr: s.masters[0]}}},
		{Start: 8192, End: 16383, Nodes: []redis.ClusterNode{{Addr: s.masters[1]}}},
	}, nil
}

const lowAddress, highAddress, nextAddress = "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"

// onCluster runs a test of a link to a Cluster of two masters, each
// of which is in no trouble at first. Keys with an "a" or a "c" are on the high one, those
// with a "b" on the low one.
func onCluster(t *testing.T, test func(t *testing.T, l *Link, fake *fakeRedis, shape *shape, low, high *trouble)) {
	synctest.Test(t, func(t *testing.T) {
		where, low, high := &shape{masters: [2]string{lowAddress, highAddress}}, &trouble{}, &trouble{}
		var l *Link
		fake := &fakeRedis{answer: func(trip []*redis.Cmd) {
			master, err := l.cluster.MasterForKey(context.Background(), trip[0].Args()[3].(string))
			switch {
			case err != nil:
				t.Error(err)
			case master.Options().Addr == lowAddress:
				low.answer(trip)
			default:
				high.answer(trip)
			}
		}}
		client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.8:1", "127.0.0.9:1"}, ClusterSlots: where.slots})
		client.AddHook(fake)
		l = newLinkTo(client, Config{Timeout: time.Second})
		defer func() {
			l.Close()
			_ = client.Close()
			time.Sleep(time.Second) // the client rests after it has asked for the slots
		}()
		test(t, l, fake, where, low, high)
	})
}

// states returns the servers, by what they are.
func states(l *Link) (up, down []string) {
	for _, s := range l.Servers() {
		if s.Why == nil {
			up = append(up, s.Address)
		} else {
			down = append(down, s.Address)
		}
	}
	return up, down
}

func do(t *testing.T, l *Link, key string) (took time.Duration, err error) {
	t.Helper()
	began := time.Now()
	_, err = l.Do(context.Background(), join(key))
	return time.Since(began), err
}

func TestTheServersOfAClusterAreKnownOnceOneHasAnswered(t *testing.T) {
	onCluster(t, func(t *testing.T, l *Link, _ *fakeRedis, _ *shape, _, _ *trouble) {
		if up, down := states(l); !slices.Equal(up, []string{"127.0.0.8:1,127.0.0.9:1"}) || down != nil {
			t.Errorf("at first: %v, %v", up, down)
		}
		for _, key := range []string{"a", "a", "b"} {
			if _, err := do(t, l, key); err != nil {
				t.Error(err)
			}
		}
		if up, down := states(l); !slices.Equal(up, []string{lowAddress, highAddress}) || down != nil {
			t.Errorf("then: %v, %v", up, down)
		}
	})
}

// TestADeadMasterHurtsNoOthersKeys freezes one of two.
func TestADeadMasterHurtsNoOthersKeys(t *testing.T) {
	onCluster(t, func(t *testing.T, l *Link, fake *fakeRedis, _ *shape, low, _ *trouble) {
		for _, key := range []string{"a", "a", "b"} {
			_, _ = do(t, l, key)
		}
		thaw := low.freeze()
		var sent []request
		for i := range 1000 { // far more than it has places
			sent = append(sent, send(l, join("b{b}"+strconv.Itoa(i))))
		}
		for range 30 {
			if took, err := do(t, l, "a"); took != 0 || err != nil {
				t.Errorf("a key of the living master: %v, after %v", err, took)
			}
			time.Sleep(50 * time.Millisecond)
		}
		for _, r := range sent {
			if !r.taken() {
				t.Fatal("a key of the dead one is still waited for")
			}
		}
		if up, down := states(l); !slices.Equal(up, []string{highAddress}) || !slices.Equal(down, []string{lowAddress}) {
			t.Errorf("up %v, down %v", up, down)
		}
		if took, err := do(t, l, "b"); took != 0 || err != ErrServerDown {
			t.Errorf("a key of the dead one: %v, after %v", err, took)
		}
		thaw()
		synctest.Wait()
		if took, err := do(t, l, "b"); took != 0 || err != nil {
			t.Errorf("a key of the one that lives again: %v, after %v", err, took)
		}
		for _, trip := range fake.trips {
			if key := trip[0].Args()[3].(string); isProbe(trip[0]) && !strings.HasPrefix(key, "ns:probe:{b") && !strings.HasPrefix(key, "ns:probe:{sha256:") {
				t.Errorf("a probe of the dead one wrote %q", key)
			}
		}
	})
}

// TestAMasterWhoseKeysMovedIsDropped has a dead one succeeded by another.
func TestAMasterWhoseKeysMovedIsDropped(t *testing.T) {
	onCluster(t, func(t *testing.T, l *Link, _ *fakeRedis, where *shape, low, _ *trouble) {
		for _, key := range []string{"a", "a", "b"} {
			_, _ = do(t, l, key)
		}
		low.refuse(errRefused)
		_, _ = do(t, l, "b")
		again, began := make(chan struct{}), time.Now()
		l.WhenUp("ns:g:{b}", func() { close(again) })
		where.mu.Lock()
		where.masters[0] = nextAddress
		where.mu.Unlock()
		<-again // the client has been told to look, and a probe has come to the next
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if up, down := states(l); slices.Contains(up, lowAddress) || down != nil {
			t.Errorf("up %v, down %v", up, down)
		}
		if took, err := do(t, l, "b"); took != 0 || err != nil {
			t.Errorf("its key: %v, after %v", err, took)
		}
		if up, _ := states(l); !slices.Equal(up, []string{highAddress, nextAddress}) {
			t.Errorf("up %v", up)
		}
	})
}

func TestAServerThatNobodyAsksIsDropped(t *testing.T) {
	onCluster(t, func(t *testing.T, l *Link, _ *fakeRedis, _ *shape, _, _ *trouble) {
		for _, key := range []string{"a", "a", "b"} {
			_, _ = do(t, l, key)
		}
		for range 6 {
			time.Sleep(sweepAfter / 2)
			if _, err := do(t, l, "a"); err != nil {
				t.Error(err)
			}
		}
		if up, _ := states(l); !slices.Equal(up, []string{highAddress}) {
			t.Errorf("up %v", up)
		}
		if took, err := do(t, l, "b"); took != 0 || err != nil {
			t.Errorf("the first one that asks again: %v, after %v", err, took)
		}
	})
}

func TestWhatComesBesideRepliesIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, _, release := hold()
		l, fake := newLink(t, Config{Timeout: time.Second, OnChange: neverDown(t)}, answer)
		r := send(l, join("k"))
		time.Sleep(10 * time.Millisecond)
		l.Heard("")
		<-r.answered
		wantUp(t, l, true)
		if n := fake.probes(); n != 0 {
			t.Errorf("%d probes were sent", n)
		}
		release()
		l.Close()
	})
	onCluster(t, func(t *testing.T, l *Link, _ *fakeRedis, _ *shape, low, _ *trouble) {
		for _, key := range []string{"a", "a", "b"} {
			_, _ = do(t, l, key)
		}
		thaw := low.freeze()
		for _, heard := range []string{lowAddress, highAddress, "10.0.0.4:1"} {
			r := send(l, join("b"))
			synctest.Wait()
			l.Heard(heard)
			<-r.answered
			synctest.Wait()
			if _, down := states(l); (down == nil) != (heard == lowAddress) {
				t.Errorf("with something heard of %s: down %v", heard, down)
			}
		}
		thaw()
	})
}

func TestTheAddressIsOneThatAPersonUnderstands(t *testing.T) {
	clients := map[string]redis.UniversalClient{
		"127.0.0.1:7000":    redis.NewClient(&redis.Options{Addr: "127.0.0.1:7000"}),
		"Sentinel's master": redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "m", SentinelAddrs: []string{"127.0.0.1:1"}}),
	}
	for want, client := range clients {
		if got := firstAddress(client); got != want {
			t.Errorf("%q, not %q", got, want)
		}
		_ = client.Close()
	}
}

// TestThoseWhoWaitForAServerThatIsDroppedAreCalled has the stand-in go down at a Cluster's
// start, and a late reply tell the client where the slots are.
func TestThoseWhoWaitForAServerThatIsDroppedAreCalled(t *testing.T) {
	onCluster(t, func(t *testing.T, l *Link, _ *fakeRedis, _ *shape, low, high *trouble) {
		thaw := low.freeze()
		late := send(l, join("b"))
		synctest.Wait()
		high.refuse(errRefused)
		_, _ = do(t, l, "a")
		<-late.answered
		called := make(chan struct{})
		l.WhenUp("ns:g:{b}", func() { close(called) })
		select {
		case <-called:
			t.Error("the server is not down")
		default:
		}
		thaw()
		select {
		case <-called:
		case <-time.After(time.Minute):
			t.Error("who waits is never called")
		}
		high.refuse(nil)
	})
}
