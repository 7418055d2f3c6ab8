package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/load"
	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
	"github.com/fleetcall/fleetcall/internal/rig/sourcerig"
)

// before is the last commit whose replicas have one group without a name, and so
// other keys in Redis and another version of messages.
const before = "186fa4891ae423ca7fb80f6a58f3a7d4cf322b21"

// buildBefore builds the program of that commit. Without git's history, as in a
// shallow clone or an archive, the test is skipped.
func buildBefore(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := sourcerig.Unpack(t.Context(), before, dir); errors.Is(err, sourcerig.ErrNoHistory) {
		t.Skipf("the program before cannot be built: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "fleetcall-before")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/fleetcall")
	build.Dir, build.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the program before: %v\n%s", err, out)
	}
	return program
}

// versions knows the version of each replica of a fleet.
type versions struct {
	*fleet.Fleet
	database *postgresrig.Server
	redis    *redisrig.Server

	mu      sync.Mutex
	of      map[string]string // old or new, by replica
	leaders map[string]int    // answers of leaders, by version
}

// check is a load's Check: it counts leaders by their version.
func (v *versions) check(url string, header http.Header, body []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if header.Get("X-Coalesce-Role") == "leader" {
		v.leaders[v.of[header.Get("X-Replica")]]++
	}
	id, err := strconv.Atoi(path.Base(url))
	if err != nil {
		return err
	}
	return checkProduct(int32(id), slices.Collect(maps.Keys(v.of)), header, body)
}

// meet calls send, whose requests for a product must all wait in one query of each of so
// many versions, until so many other replicas have subscribed to its end. Then the queries
// go on. The program before has no count of joins to wait for.
func (v *versions) meet(t *testing.T, product, requests, queries, followers int, send func() error) {
	t.Helper()
	v.database.ResetQueries()
	release := v.database.Hold()
	defer release()
	sent := make(chan error, 1)
	go func() { sent <- send() }()
	eventually(t, "every replica taking part", func() bool {
		return len(sent) > 0 || waiting(t, v.Fleet) == requests && v.database.Queries() == queries && v.subscribers(t, product) == followers
	})
	time.Sleep(onItsWay)
	release()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// subscribers returns how many subscriptions there are to channels of a product's key,
// whatever the versions call them.
func (v *versions) subscribers(t *testing.T, product int) (n int) {
	t.Helper()
	client := v.redis.Client()
	channels, err := client.PubSubChannels(t.Context(), fmt.Sprintf("*{product:%d}*", product)).Result()
	if err == nil && len(channels) > 0 {
		var each map[string]int64
		each, err = client.PubSubNumSub(t.Context(), channels...).Result()
		for _, count := range each {
			n += int(count)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// load sends requests through the balancer.
func (v *versions) load(t *testing.T, requests, concurrency int, products ...int) (*load.Result, error) {
	var urls []string
	for _, id := range products {
		urls = append(urls, fmt.Sprintf("%s/product/coalesced/%d", v.URL(), id))
	}
	v.database.ResetQueries()
	v.mu.Lock()
	v.leaders = map[string]int{}
	v.mu.Unlock()
	return load.Run(t.Context(), load.Config{URLs: urls, Requests: requests, Concurrency: concurrency, Connect: requests == concurrency, Check: v.check})
}

// right fails the test unless each answer is right. It returns PostgreSQL's queries and the
// leaders by version.
func (v *versions) right(t *testing.T, r *load.Result) (queries int, leaders map[string]int) {
	t.Helper()
	if r.OK != r.Requests {
		t.Errorf("%d of %d requests answered right; failures: %v", r.OK, r.Requests, r.Errors)
	}
	queries = v.database.Queries()
	if ran := r.Roles["leader"] + r.Roles["fallback"]; queries != ran {
		t.Errorf("PostgreSQL saw %d queries, and the answers are of %d: %v", queries, ran, r.Roles)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return queries, v.leaders
}

// shares fails the test unless each version runs one query of a burst of identical
// requests, whose result all replicas of that version have.
func (v *versions) shares(t *testing.T, when string, product int) {
	t.Helper()
	var r *load.Result
	v.meet(t, product, 80, 2, len(v.of)-2, func() (err error) {
		r, err = v.load(t, 80, 80, product)
		return err
	})
	queries, leaders := v.right(t, r)
	t.Logf("%s: 80 requests for one product, %d queries, leaders %v, roles %v, p50 %v, longest %v", when, queries, leaders, r.Roles, r.Latency.P50, r.Latency.Max)
	if want := map[string]int{"old": 1, "new": 1}; queries != 2 || !maps.Equal(leaders, want) || len(r.Replicas) != len(v.of) {
		t.Errorf("%s: PostgreSQL saw %d queries, led by %v, for answers of %v; want one of each version", when, queries, leaders, r.Replicas)
	}
}

// like returns the replicas of the same version as one of them, sorted.
func (v *versions) like(one *fleet.Replica) []string {
	var same []string
	for id, version := range v.of {
		if version == v.of[one.ID] {
			same = append(same, id)
		}
	}
	slices.Sort(same)
	return same
}

// counted fails the test unless each replica, asked for the fleet's statistics, tells
// those of all of its version.
func (v *versions) counted(t *testing.T, when string) {
	t.Helper()
	for _, r := range v.Replicas() {
		want := v.like(r)
		s, err := load.Target{Base: r.URL}.FleetStatsOf(t.Context(), len(want))
		if err != nil {
			t.Errorf("%s, %s: %v", when, r.ID, err)
			continue
		}
		var names []string
		sum := load.TierStats{}
		for _, one := range s.Replicas {
			names = append(names, one.Replica)
			sum.Fallbacks += one.Tiers.Distributed.Fallbacks
			sum.Takeovers += one.Tiers.Distributed.Takeovers
			sum.LeaseLost += one.Tiers.Distributed.LeaseLost
		}
		slices.Sort(names)
		if !slices.Equal(names, want) {
			t.Errorf("%s: the %s %s knows %v, want %v", when, v.of[r.ID], r.ID, names, want)
		}
		// Each caller had its result from the flight that it came to: nobody had
		// to wait for a lease to run out, or did without Redis.
		if sum != (load.TierStats{}) {
			t.Errorf("%s: fallbacks, takeovers and leases lost: %+v", when, sum)
		}
	}
}

// watched returns when the events of a replica show all replicas of its version.
func (v *versions) watched(t *testing.T, r *fleet.Replica) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		data, is := strings.CutPrefix(lines.Text(), "data:")
		if !is {
			continue
		}
		var snapshot struct {
			Replicas []struct{ Stats load.Stats }
		}
		if json.Unmarshal([]byte(data), &snapshot) == nil && len(snapshot.Replicas) == len(v.like(r)) {
			return
		}
	}
	t.Errorf("the events of the %s %s never show all of %v: %v", v.of[r.ID], r.ID, v.like(r), lines.Err())
}

// burst is what a replica tells of a burst.
type burst struct {
	Requests, Queries, Failed, Unfinished int
	Replicas                              []struct {
		Replica, State string
		Requests       int
	}
}

// order has a replica send a burst.
func order(ctx context.Context, r *fleet.Replica, product, requests int) (b burst, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL+"/burst", strings.NewReader(fmt.Sprintf(`{"product":%d,"requests":%d}`, product, requests)))
	if err != nil {
		return b, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return b, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return b, fmt.Errorf("the burst of %s: status %d", r.ID, resp.StatusCode)
	}
	return b, json.NewDecoder(resp.Body).Decode(&b)
}

// bursts has a replica send a burst, which all replicas of its version share.
func (v *versions) bursts(t *testing.T, r *fleet.Replica, product int) {
	t.Helper()
	var burst burst
	v.meet(t, product, 40, 1, len(v.like(r))-1, func() (err error) {
		burst, err = order(t.Context(), r, product, 40)
		return err
	})
	queries := v.database.Queries()
	t.Logf("a burst of the %s %s: %d requests, %d queries: %+v", v.of[r.ID], r.ID, burst.Requests, queries, burst.Replicas)
	if burst.Requests != 40 || burst.Failed != 0 || burst.Unfinished != 0 || burst.Queries != 1 || queries != 1 || len(burst.Replicas) != len(v.like(r)) {
		t.Errorf("the burst of the %s %s: %+v, PostgreSQL saw %d queries", v.of[r.ID], r.ID, burst, queries)
	}
	for _, share := range burst.Replicas {
		if share.State != "ran" || share.Requests != 40/len(burst.Replicas) {
			t.Errorf("the share of %s: %+v", share.Replica, share)
		}
	}
}

// upgrade stops a replica and starts it again from another program, while requests
// for many products are sent.
func (v *versions) upgrade(t *testing.T, r *fleet.Replica, program string) {
	t.Helper()
	restarted := make(chan error, 1)
	go func() {
		err := r.Stop()
		if err == nil {
			v.Use(program)
			_, err = v.Restart(context.WithoutCancel(t.Context()), r)
		}
		restarted <- err
	}()
	var products []int
	for id := range 20 {
		products = append(products, 101+id)
	}
	sent, queries := 0, 0
	for last := false; ; {
		load, err := v.load(t, 160, 80, products...)
		if err != nil {
			t.Fatal(err)
		}
		n, _ := v.right(t, load)
		sent, queries = sent+160, queries+n
		if last {
			break
		}
		select {
		case err := <-restarted:
			if err != nil {
				t.Fatal(err)
			}
			v.mu.Lock()
			v.of[r.ID] = "new"
			v.mu.Unlock()
			last = true // once more, with all
		default:
		}
	}
	t.Logf("during the upgrade of %s: %d requests for 20 products, %d queries", r.ID, sent, queries)
	// Four requests at once for each product: each version shares its own.
	if queries >= sent {
		t.Errorf("PostgreSQL saw %d queries for %d requests", queries, sent)
	}
}

// TestARollingUpgradeFromTheProgramBeforeGroups: replicas of both versions serve side
// by side. Their keys and channels differ, so that each version shares among its own
// replicas, and knows only those. A caller that waited for
// what never comes would be answered 504 at the flight timeout, and fail the test.
func TestARollingUpgradeFromTheProgramBeforeGroups(t *testing.T) {
	t.Parallel()
	old := buildBefore(t)
	pg := database(t)
	redis := redisrig.Start(t)
	f := start(t, setup{binary: old, mode: "distributed", replicas: 2, postgres: pg, redisURL: redis.URL(), env: []string{
		"COALESCE_FLIGHT_TIMEOUT=1m",
		"QUERY_DELAY=200ms", // during the upgrade nothing holds the queries
	}})
	v := &versions{Fleet: f, database: pg, redis: redis, of: map[string]string{}}
	for _, id := range replicaIDs(f) {
		v.of[id] = "old"
	}
	f.Use(binary)
	for range 2 {
		r, err := f.AddReplica(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		v.of[r.ID] = "new"
	}
	running := f.Replicas()
	oldest, newest := running[0], running[3]

	v.shares(t, "two of each version", 1)
	v.shares(t, "two of each version", 2)
	v.counted(t, "two of each version")
	for i, r := range []*fleet.Replica{oldest, newest} {
		v.watched(t, r)
		v.bursts(t, r, 3+i)
	}
	v.upgrade(t, oldest, binary)
	v.shares(t, "one old, three new", 5)
	v.counted(t, "one old, three new")
}
