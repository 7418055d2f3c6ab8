package redislink

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

// pieces are commands that store so many pieces of so many bytes.
func pieces(n, bytes int) []protocol.Command {
	return protocol.Store(protocol.NewNames(protocol.NewSpace("ns", "g", 0, protocol.NewFleetID()), "k"), &settings, slices.Repeat([][]byte{make([]byte, bytes)}, n), 0)
}

// TestPiecesAreSentAFewAtATime releases one after the other.
func TestPiecesAreSentAFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		l, fake := newLink(t, Config{}, func(trip []*redis.Cmd) { <-release; succeed(trip) })
		defer l.Close()
		const n = 5
		done := make(chan struct{})
		go func() {
			defer close(done)
			replies, err := l.DoAll(context.Background(), pieces(n, protocol.PieceBytes), nil)
			if !slices.Equal(replies, slices.Repeat([]any{int64(1)}, n)) || err != nil {
				t.Errorf("%v, %v", replies, err)
			}
		}()
		for answered := range n {
			synctest.Wait()
			if sent, want := len(fake.commands()), min(answered+atATime, n); sent != want {
				t.Errorf("%d were sent when %d were answered, not %d", sent, answered, want)
			}
			release <- struct{}{}
		}
		<-done
	})
}

// TestPiecesOfManyOutcomesLeaveRoom has more outcomes than the client has connections.
func TestPiecesOfManyOutcomesLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each = timeout / 4
		l, fake := newLink(t, Config{}, func(trip []*redis.Cmd) { time.Sleep(each); succeed(trip) })
		defer l.Close()
		var done sync.WaitGroup
		for range 50 {
			done.Go(func() { // in time, though the others' take much longer
				if _, err := l.DoAll(context.Background(), pieces(3, protocol.PieceBytes), nil); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := len(fake.commands()); n != maxMoving {
			t.Errorf("%d are under way", n)
		}
		done.Wait()
		if n := len(fake.commands()); n != 150 {
			t.Errorf("%d were sent", n)
		}
	})
}

func TestPiecesStopAtTheFirstError(t *testing.T) {
	l, fake := newLink(t, Config{}, func(trip []*redis.Cmd) { trip[0].SetErr(tooLarge{}) })
	defer l.Close()
	_, err := l.DoAll(context.Background(), pieces(5, protocol.PieceBytes), nil)
	if !errors.Is(err, coalesce.ErrUnavailable) || !OwnFault(err) {
		t.Error(err)
	}
	if n := len(fake.commands()); n > atATime {
		t.Errorf("%d were sent", n)
	}
}

// tooLarge is an error that a proxy replied.
type tooLarge struct{}

func (tooLarge) Error() string { return "ERR max request size exceeded" }

// RedisError makes tooLarge a redis.Error.
func (tooLarge) RedisError() {}

func TestPiecesStopWhenNobodyWantsThem(t *testing.T) {
	l, fake := newLink(t, Config{}, succeed)
	defer l.Close()
	left, calls := errors.New("all have left"), 0
	_, err := l.DoAll(context.Background(), pieces(5, protocol.PieceBytes), func() error {
		if calls++; calls == 4 {
			return left
		}
		return nil
	})
	if n := len(fake.commands()); n != 3 || err != left {
		t.Errorf("%d were sent: %v", n, err)
	}
}

// TestPiecesThatWaitForTheirTurnStopWhenNobodyWantsThem has the outcomes of others take long,
// one after the other.
func TestPiecesThatWaitForTheirTurnStopWhenNobodyWantsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := newLink(t, Config{}, func(trip []*redis.Cmd) { time.Sleep(timeout - time.Second); succeed(trip) })
		var others sync.WaitGroup
		for range 50 {
			others.Go(func() { _, _ = l.DoAll(context.Background(), pieces(2, protocol.PieceBytes), nil) })
		}
		synctest.Wait()
		left, until := errors.New("its time has passed"), time.Now().Add(2*timeout)
		_, err := l.DoAll(context.Background(), pieces(2, protocol.PieceBytes), func() error {
			if time.Now().Before(until) {
				return nil
			}
			return left
		})
		// Its turn may also come just before its time is over.
		if late := time.Since(until); err != left && err != nil || late > timeout {
			t.Errorf("%v, %v after its time", err, late)
		}
		others.Wait()
		l.Close()
	})
}

// TestPiecesTogetherHaveTheTimeOfOneThatMovesAll has each take so long that the sum is too
// much, over a link that answers.
func TestPiecesTogetherHaveTheTimeOfOneThatMovesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 16
		each := Allowed(timeout, protocol.PieceBytes) - time.Second
		l, fake := newLink(t, Config{}, func(trip []*redis.Cmd) {
			if !isProbe(trip[0]) {
				time.Sleep(each)
			}
			succeed(trip)
		})
		began := time.Now()
		_, err := l.DoAll(context.Background(), pieces(n, protocol.PieceBytes), nil)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, coalesce.ErrUnavailable) || !OwnFault(err) {
			t.Error(err)
		}
		if took, most := time.Since(began), Allowed(timeout, n*protocol.PieceBytes); took > most {
			t.Errorf("it took %v, and may take %v", took, most)
		}
		if sent := len(fake.commands()); sent >= n {
			t.Errorf("all %d were sent", sent)
		}
		if state := l.only.state(); state.Why != nil {
			t.Errorf("the server is down: %v", state.Why)
		}
		time.Sleep(time.Hour) // what the client still has comes back
		l.Close()
	})
}

// TestAPieceThatHasLittleTimeLeftProvesNothing has a short last piece, which is not answered
// in the moment that the others have left for it. Nor is a probe so soon.
func TestAPieceThatHasLittleTimeLeftProvesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := newLink(t, Config{}, func(trip []*redis.Cmd) {
			switch key := trip[0].Args()[1].(string); {
			case isProbe(trip[0]):
				time.Sleep(timeout / 4)
			case strings.HasSuffix(key, ":2"):
				time.Sleep(timeout / 2)
			default:
				time.Sleep(timeout - time.Second)
			}
			succeed(trip)
		})
		names := protocol.NewNames(protocol.NewSpace("ns", "g", 0, protocol.NewFleetID()), "k")
		short := make([]byte, 100)
		_, err := l.DoAll(context.Background(), protocol.Store(names, &settings, [][]byte{short, short, short}, 0), nil)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if state := l.only.state(); state.Why != nil {
			t.Errorf("the server is down: %v", state.Why)
		}
		time.Sleep(time.Hour) // what the client still has comes back
		l.Close()
	})
}

// TestPiecesThatWaitForOthersOfAServerThatHangs has more outcomes than may be under way. The
// server was well, and answers nothing any more: the wait for its other pieces is then part
// of the time that an outcome has.
func TestPiecesThatWaitForOthersOfAServerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		frozen := make(chan struct{})
		l, _ := newLink(t, Config{}, func(trip []*redis.Cmd) { <-frozen; succeed(trip) })
		var done sync.WaitGroup
		const n = 3
		began, most := time.Now(), Allowed(timeout, n*protocol.PieceBytes)
		for range 50 {
			done.Go(func() {
				_, err := l.DoAll(context.Background(), pieces(n, protocol.PieceBytes), nil)
				if took := time.Since(began); took > most || !errors.Is(err, coalesce.ErrUnavailable) {
					t.Errorf("it took %v, and may take %v: %v", took, most, err)
				}
			})
		}
		done.Wait()
		close(frozen)
		l.Close()
	})
}
