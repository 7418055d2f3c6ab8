package main

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

func TestLeasesAreThoseHeldTheOldestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases(3 * time.Second)
		tell := func(flight int, state distributed.LeaseState) {
			l.Lease(distributed.Lease{Key: fmt.Sprintf("key-%d", flight), Flight: fmt.Sprint(flight), State: state, Asked: time.Now()})
		}
		expect := func(when string, count int, first string, age float64) {
			t.Helper()
			got := l.list()
			if got.Count != count || count > 0 && (got.Oldest[0].Key != first || got.Oldest[0].AgeMS != age) || len(got.Oldest) != min(count, 20) {
				t.Errorf("%s: %+v", when, got)
			}
		}
		expect("before", 0, "", 0)
		for flight := range 30 {
			tell(flight, distributed.LeaseTaken)
			time.Sleep(time.Millisecond) // leases are listed by their ages
		}
		expect("30 taken", 30, "key-0", 30)
		tell(0, distributed.LeaseReleased)
		tell(1, distributed.LeaseLost)
		tell(99, distributed.LeaseReleased)
		tell(99, distributed.LeaseRenewed)
		expect("one released, one lost", 28, "key-2", 28)
		time.Sleep(2 * time.Second)
		tell(5, distributed.LeaseRenewed)
		time.Sleep(2 * time.Second)
		expect("only one was renewed", 1, "key-5", 4025)
		time.Sleep(2 * time.Second)
		expect("it ran out", 0, "", 0)
	})
}

func TestLeasesThatNobodyReleasesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases(3 * time.Second)
		for flight := range 20_000 {
			l.Lease(distributed.Lease{Key: "key", Flight: fmt.Sprint(flight), State: distributed.LeaseTaken, Asked: time.Now()})
			time.Sleep(10 * time.Millisecond) // 300 of them are alive at once
			if len(l.held) > leasesSweep {
				t.Fatalf("%d are kept", len(l.held))
			}
		}
	})
}
