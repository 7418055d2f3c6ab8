package broadcast_test

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/internal/broadcast"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeMessages numbers its messages, and records when it produced each.
type fakeMessages struct {
	made atomic.Int64
	at   []time.Time
}

func (c *fakeMessages) make(context.Context) []byte {
	c.at = append(c.at, time.Now())
	return []byte(strconv.FormatInt(c.made.Add(1), 10))
}

func watch(t *testing.T, b *broadcast.Broadcast) *broadcast.Watcher {
	t.Helper()
	w, err := b.Watch()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestAllWatchersShareOneMessageASecondAndWithoutWatchersThereIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c fakeMessages
		b := broadcast.New(broadcast.Config{Message: c.make, Interval: time.Second, MaxWatchers: 100})
		time.Sleep(time.Minute)
		if n := c.made.Load(); n != 0 {
			t.Errorf("%d messages were made for nobody", n)
		}
		var all []*broadcast.Watcher
		for range 10 {
			all = append(all, watch(t, b))
		}
		for second := 1; second <= 5; second++ {
			for _, w := range all {
				if got := string(<-w.Messages()); got != strconv.Itoa(second) {
					t.Errorf("got message %s, want %d", got, second)
				}
			}
		}
		for _, w := range all {
			w.Close()
			w.Close()
			if w.Context().Err() == nil {
				t.Error("a closed watcher goes on")
			}
		}
		time.Sleep(time.Minute)
		if n := c.made.Load(); n != 5 {
			t.Errorf("%d messages were made, want 5", n)
		}
		b.Close()
	})
}

func TestWatchersThatComeAndGoDoNotShortenTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c fakeMessages
		b := broadcast.New(broadcast.Config{Message: c.make, Interval: time.Second, MaxWatchers: 100})
		for range 100 {
			w := watch(t, b)
			time.Sleep(50 * time.Millisecond)
			w.Close()
		}
		synctest.Wait()
		if n := c.made.Load(); n < 4 || n > 6 {
			t.Errorf("%d messages in 5 s", n)
		}
		for i := 1; i < len(c.at); i++ {
			if gap := c.at[i].Sub(c.at[i-1]); gap < time.Second {
				t.Errorf("two messages are %v apart", gap)
			}
		}
		b.Close()
	})
}

func TestALaterWatcherGetsTheNewestMessageAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c fakeMessages
		b := broadcast.New(broadcast.Config{Message: c.make, Interval: time.Second, MaxWatchers: 2})
		defer b.Close()
		first := watch(t, b)
		<-first.Messages()
		time.Sleep(300 * time.Millisecond)
		begin := time.Now()
		if got := string(<-watch(t, b).Messages()); got != "1" || time.Since(begin) != 0 {
			t.Errorf("got message %s after %v", got, time.Since(begin))
		}
	})
}

func TestASlowWatcherIsDroppedAndNobodyWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c fakeMessages
		b := broadcast.New(broadcast.Config{Message: c.make, Interval: time.Second, MaxWatchers: 2})
		defer b.Close()
		slow, quick := watch(t, b), watch(t, b)
		begin := time.Now()
		for range 10 {
			<-quick.Messages()
		}
		if took := time.Since(begin); took != 9*time.Second {
			t.Errorf("ten messages took %v", took)
		}
		if slow.Context().Err() == nil || quick.Context().Err() != nil {
			t.Error("the slow watcher goes on, or the quick one does not")
		}
		watch(t, b).Close() // there is room for another watcher again
	})
}

func TestOneWatcherTooManyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c fakeMessages
		b := broadcast.New(broadcast.Config{Message: c.make, Interval: time.Second, MaxWatchers: 2})
		first, second := watch(t, b), watch(t, b)
		if _, err := b.Watch(); !errors.Is(err, broadcast.ErrFull) {
			t.Errorf("the third got %v", err)
		}
		first.Close()
		third := watch(t, b)
		b.Close()
		for _, w := range []*broadcast.Watcher{second, third} {
			if w.Context().Err() == nil {
				t.Error("a watcher outlives the broadcast")
			}
		}
		if _, err := b.Watch(); !errors.Is(err, broadcast.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		b.Close()
	})
}

func TestCloseInterruptsMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := broadcast.New(broadcast.Config{Interval: time.Second, MaxWatchers: 2, Message: func(ctx context.Context) []byte {
			<-ctx.Done()
			return []byte("too late")
		}})
		w := watch(t, b)
		synctest.Wait()
		b.Close()
		<-w.Context().Done()
		select {
		case m := <-w.Messages():
			t.Errorf("got %q", m)
		default:
		}
	})
}
