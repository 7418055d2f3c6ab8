package e2e_test

import (
	"fmt"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/load"
	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"
)

// together is a burst whose queries all wait in PostgreSQL until every request has come,
// however long that takes.
type together struct {
	fleet    *fleet.Fleet
	postgres *postgresrig.Server
	requests int
	products int  // asked for in turn, from product 1 on; zero: 1
	connect  bool // open all connections before the first request is sent
}

// send sends the burst, calls during when every request waits, and lets the queries go on
// when that has returned. It fails the test unless every response is right.
func (b together) send(t *testing.T, during func()) *load.Result {
	t.Helper()
	b.products = max(b.products, 1)
	release := b.postgres.Hold()
	defer release()
	replicas := replicaIDs(b.fleet)
	var urls []string
	for id := range b.products {
		urls = append(urls, fmt.Sprintf("%s/product/coalesced/%d", b.fleet.URL(), id+1))
	}
	type outcome struct {
		*load.Result
		err error
	}
	sent := make(chan outcome, 1)
	go func() {
		r, err := load.Run(t.Context(), load.Config{URLs: urls, Requests: b.requests, Concurrency: b.requests, Connect: b.connect,
			Check: func(url string, header http.Header, body []byte) error {
				id, err := strconv.Atoi(path.Base(url))
				if err != nil {
					return err
				}
				return checkProduct(int32(id), replicas, header, body)
			}})
		sent <- outcome{r, err}
	}()
	eventually(t, "every request waiting", func() bool { return len(sent) > 0 || waiting(t, b.fleet) == b.requests })
	if len(sent) == 0 {
		during()
	}
	release()
	r := <-sent
	if r.err != nil {
		t.Fatal(r.err)
	}
	if r.OK != b.requests {
		t.Errorf("%d of %d requests answered right; failures: %v", r.OK, b.requests, r.Errors)
	}
	return r.Result
}

// sendJoined is send for a fleet that shares queries: it lets them go on when every flight
// of every replica has joined.
func (b together) sendJoined(t *testing.T) *load.Result {
	t.Helper()
	before := joins(t, b.fleet)
	return b.send(t, func() {
		eventually(t, "every flight having joined", func() bool { return joins(t, b.fleet)-before >= flights(t, b.fleet) })
		time.Sleep(onItsWay)
	})
}

// onItsWay is longer than a reply takes on its way: by what a leader knows of Redis' clock,
// a function that ends sooner after a follower's join may have ended before it.
const onItsWay = 500 * time.Millisecond

// telling is a fleet, or whatever else has replicas that tell their statistics.
type telling interface{ Replicas() []*fleet.Replica }

// sum adds up what it reads of each replica.
func sum(t *testing.T, f telling, of func(*fleet.Replica) int) int {
	t.Helper()
	n := 0
	for _, r := range f.Replicas() {
		n += of(r)
	}
	return n
}

type flightStats struct {
	Tiers struct {
		Local       struct{ Waiting int }
		Distributed struct {
			ActiveFlights int `json:"active_flights"`
		}
	}
}

// waiting returns how many requests wait for the result of a flight.
func waiting(t *testing.T, f telling) int {
	t.Helper()
	return sum(t, f, func(r *fleet.Replica) int {
		var s flightStats
		mustGet(t, r.URL+"/stats").decode(t, &s)
		return s.Tiers.Local.Waiting
	})
}

// flights returns how many flights of the replicas are in the distributed tier.
func flights(t *testing.T, f telling) int {
	t.Helper()
	return sum(t, f, func(r *fleet.Replica) int {
		var s flightStats
		mustGet(t, r.URL+"/stats").decode(t, &s)
		return s.Tiers.Distributed.ActiveFlights
	})
}

var joinsCount = regexp.MustCompile(`(?m)^fleetcall_redis_command_duration_seconds_count\{[^}]*step="join"[^}]*\} (\d+)`)

// joins returns how many joins Redis has answered.
func joins(t *testing.T, f telling) int {
	t.Helper()
	return sum(t, f, func(r *fleet.Replica) int {
		n := 0
		for _, found := range joinsCount.FindAllStringSubmatch(string(mustGet(t, r.URL+"/metrics").body), -1) {
			count, err := strconv.Atoi(found[1])
			if err != nil {
				t.Fatal(err)
			}
			n += count
		}
		return n
	})
}
