package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// measureFreshness counts results whose function had ended when the caller that got them
// came, while all cores are busy. Redis' clock is this machine's, which the function reads
// as its last act, and the caller just before its call: Redis' own answer would come too
// late on a busy machine to tell which was first. Where the kernel takes the core away
// between that last act and the return, as it may on a machine with more to do than this,
// the function is counted as ended too early.
func measureFreshness(b *bench, s *section) {
	addr, stop := startRedis()
	defer stop()
	f := troubledOn(addr)
	isOurClock(addr)
	keys := keysNamed("fresh", troubledKeys)
	idle := busy()
	var all ages
	var calling sync.WaitGroup
	for replica := range f.groups {
		for range 2 * troubledKeys {
			calling.Go(func() {
				for end := time.Now().Add(b.lasting(20 * time.Second)); time.Now().Before(end); {
					time.Sleep(rand.N(2 * troubledFunction)) // callers come at any time of a flight
					all.add(f.timed(replica, keys[rand.IntN(len(keys))]))
				}
			})
		}
	}
	calling.Wait()
	idle()
	fallbacks := uint64(0)
	for _, group := range f.groups {
		fallbacks += group.Stats().Distributed.Fallbacks
	}
	f.close()
	t := table{
		Title:   "All cores busy, callers that come at any time",
		Columns: []string{"calls", "fell back", "got another's result", "whose function had ended before they came", "by, p50", "most"},
	}
	t.add(thousands(all.calls), thousands(int(fallbacks)), thousands(all.shared), thousands(len(all.old)),
		milliseconds(float64(quantile(all.old, 0.5))), milliseconds(float64(quantile(all.old, 1))))
	s.Tables = append(s.Tables, t)
	s.within("results whose function had ended before their caller came", float64(len(all.old)), 0, count)
}

// busy keeps every core busy until idle is called.
func busy() (idle func()) {
	var over atomic.Bool
	var spinning sync.WaitGroup
	for range runtime.NumCPU() {
		spinning.Go(func() {
			for !over.Load() {
			}
		})
	}
	return func() {
		over.Store(true)
		spinning.Wait()
	}
}

// ages says how old the results were that callers got.
type ages struct {
	mu            sync.Mutex
	calls, shared int
	old           []time.Duration // of those whose function had ended before
}

func (a *ages) add(ended, came int64, role coalesce.Role) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
	if role == coalesce.Leader || role == coalesce.Fallback {
		return
	}
	a.shared++
	if ended < came {
		a.old = append(a.old, time.Duration(came-ended)*time.Microsecond)
	}
}

// timed calls for a key, and returns when the function of its result had ended and when
// the call came, in microseconds of Redis' clock.
func (f *troubled) timed(replica int, key string) (ended, came int64, role coalesce.Role) {
	own := make([]byte, 8)
	came = time.Now().UnixMicro()
	result, role, err := f.groups[replica].Do(background(), key, func(context.Context) ([]byte, error) {
		time.Sleep(troubledFunction) // the work that is shared
		binary.BigEndian.PutUint64(own, uint64(time.Now().UnixMicro()))
		return own, nil
	})
	if err != nil {
		f.fail.CompareAndSwap(nil, &err)
		return came, came, role
	}
	return int64(binary.BigEndian.Uint64(result)), came, role
}

// isOurClock makes sure that Redis tells this machine's time.
func isOurClock(addr string) {
	client := newObserver(addr)
	defer func() { _ = client.Close() }()
	before := time.Now()
	told := value(client.Time(background()).Result())
	if told.Before(before.Truncate(time.Microsecond)) || told.After(time.Now()) {
		must(fmt.Errorf("redis says that it is %v, which it is not", told))
	}
}

// measureLeaving has all callers of all replicas leave, in each order, while the function
// runs on, and times how long its context lives on.
func measureLeaving(b *bench, s *section) {
	addr, stop := startRedis()
	defer stop()
	f := troubledOn(addr)
	t := table{
		Title:   fmt.Sprintf("All callers of %d replicas leave %d flights, 50 ms one after another", troubledReplicas, 3*troubledKeys),
		Columns: []string{"who leaves first", "until the function's context ends, p50", "most"},
		Note:    "The lease is looked at each second, a third of its TTL; a flight ends after 30 s anyway.",
	}
	orders := []string{"the leader's callers", "the followers'", "all at once"}
	took := make([][]time.Duration, len(orders))
	var leaving sync.WaitGroup
	for i, order := range orders {
		leaving.Go(func() { took[i] = f.leave(b, order) })
	}
	leaving.Wait()
	for i, order := range orders {
		t.add(order, milliseconds(float64(quantile(took[i], 0.5))), milliseconds(float64(quantile(took[i], 1))))
	}
	f.close()
	s.Tables = append(s.Tables, t)
	s.within("all callers left, until the function's context ends", float64(quantile(slices.Concat(took...), 1)), float64(leaseTTL/3+scheduled), milliseconds)
}

// leave has every key's callers come, and leave in an order.
func (f *troubled) leave(b *bench, order string) []time.Duration {
	n := troubledKeys
	if b.quick {
		n = 4
	}
	took := make([]time.Duration, n)
	var flights sync.WaitGroup
	for i, key := range keysNamed("left "+order, n) {
		flights.Go(func() { took[i] = f.leaveOne(key, order) })
	}
	flights.Wait()
	return took
}

func (f *troubled) leaveOne(key, order string) time.Duration {
	led, ended := make(chan int, len(f.groups)), make(chan time.Time, len(f.groups))
	leaves := make([]context.CancelFunc, len(f.groups))
	var callers sync.WaitGroup
	for replica, group := range f.groups {
		ctx, cancel := context.WithCancel(background())
		leaves[replica] = cancel
		callers.Go(func() {
			_, _, _ = group.Do(ctx, key, func(ctx context.Context) ([]byte, error) {
				led <- replica
				<-ctx.Done()
				ended <- time.Now()
				return nil, ctx.Err()
			})
		})
	}
	leader := <-led
	time.Sleep(100*time.Millisecond + rand.N(leaseTTL/3)) // the others follow; the lease is looked at when a third of it has passed
	leave := func(leads bool) {
		for replica, cancel := range leaves {
			if (replica == leader) == leads {
				cancel()
			}
		}
	}
	gap := 50 * time.Millisecond
	if order == "all at once" {
		gap = 0
	}
	leave(order == "the leader's callers")
	time.Sleep(gap) // those who leave first are gone by then
	left := time.Now()
	leave(order != "the leader's callers")
	callers.Wait()
	return (<-ended).Sub(left)
}
