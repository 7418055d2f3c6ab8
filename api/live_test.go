package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/product"
)

// stream is an open response of /events.
type stream struct {
	answer response
	lines  *bufio.Scanner
	close  func()
}

// watch opens /events and checks the response against the document.
func watch(t *testing.T, client *http.Client, url string) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{answer: response{status: resp.StatusCode, header: resp.Header}, lines: bufio.NewScanner(resp.Body)}
	s.lines.Buffer(nil, 1<<20)
	s.close = func() {
		cancel()
		_ = resp.Body.Close()
	}
	t.Cleanup(s.close)
	if resp.StatusCode != http.StatusOK {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		s.answer.body = string(body)
	}
	expectDocumented(t, req, s.answer)
	expectSecurityHeaders(t, s.answer)
	return s
}

// next returns the fields of the next event, or false at the end of the stream.
func (s *stream) next() (map[string]string, bool) {
	event := map[string]string{}
	for s.lines.Scan() {
		name, value, ok := strings.Cut(s.lines.Text(), ": ")
		switch {
		case s.lines.Text() == "":
			if event["data"] != "" {
				return event, true
			}
			event = map[string]string{}
		case ok && name != "":
			event[name] = value
		}
	}
	return nil, false
}

// snapshot returns the next snapshot and checks it against the document.
func (s *stream) snapshot(t *testing.T) api.Snapshot {
	t.Helper()
	event, ok := s.next()
	if !ok {
		t.Fatalf("the stream has ended: %v", s.lines.Err())
	}
	if event["event"] != "snapshot" || event["id"] == "" {
		t.Errorf("event %q, id %q", event["event"], event["id"])
	}
	c, err := loadContract()
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal([]byte(event["data"]), &tree); err != nil {
		t.Fatal(err)
	}
	if err := c.doc.Components.Schemas["Snapshot"].Value.VisitJSON(tree); err != nil {
		t.Errorf("the snapshot is not as in the document: %v\n%s", err, event["data"])
	}
	return decode[api.Snapshot](t, response{body: event["data"]})
}

// openEveryStream provokes every documented response of /events.
func openEveryStream(t *testing.T) {
	t.Helper()
	f := start(t, &store{}, nil)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	s := watch(t, client, f.url)
	s.snapshot(t)
	f.Drain()
	refused := watch(t, client, f.url).answer
	expectProblem(t, refused, http.StatusServiceUnavailable)
}

func TestASnapshotHasTheWholeFleet(t *testing.T) {
	fleet := &fakeFleet{missing: 1}
	var last *fixture
	for i := range 3 {
		f := start(t, &store{}, func(c *api.Config) {
			c.Replica = fmt.Sprintf("replica-%d", 3-i)
			c.Fleet = fleet
			c.Leases = func() api.Leases {
				return api.Leases{Count: 1, Oldest: []api.Lease{{Key: "<img src=x>", AgeMS: 1.5}}}
			}
		})
		fleet.servers = append(fleet.servers, f.Server)
		f.get(t, "/product/coalesced/7")
		f.get(t, "/product/normal/7")
		f.get(t, fmt.Sprintf("/product/coalesced/%d", 10+i))
		last = f
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	s := watch(t, client, last.url)
	defer s.close()
	snap := s.snapshot(t)
	if snap.Fleet.Scope != "fleet" || snap.Fleet.TotalRequests != 6 || snap.Fleet.Database.Queries != 9 || *snap.Fleet.Missing != 1 || snap.Fleet.Note == "" {
		t.Errorf("the sum: %+v", snap.Fleet)
	}
	if age := time.Since(time.UnixMilli(int64(snap.At * 1000))); age < -time.Second || age > time.Minute {
		t.Errorf("it is %v old", age)
	}
	if len(snap.HotKeys) != 4 || snap.HotKeys[0] != (api.HotKey{Key: "product:7", Requests: 6}) {
		t.Errorf("hot keys %v", snap.HotKeys)
	}
	instances := map[string]bool{}
	for i, replica := range snap.Replicas {
		instances[replica.Instance] = true
		if replica.Stats.Replica != fmt.Sprintf("replica-%d", i+1) || replica.Leases.Count != 1 {
			t.Errorf("%+v", replica)
		}
		expectLatencies(t, replica.Latency, map[string]uint64{"leader": 2, "normal": 1})
	}
	if len(instances) != 3 {
		t.Errorf("instances %v", instances)
	}
	last.send(t, http.MethodPost, "/stats/reset?scope=fleet", nil)
	for snap = s.snapshot(t); snap.Fleet.TotalRequests != 0; {
		snap = s.snapshot(t)
	}
	if len(snap.Replicas[0].Latency) != 0 {
		t.Errorf("after a reset: %v", snap.Replicas[0].Latency)
	}
}

// expectLatencies fails the test unless the buckets have this many requests of
// each role.
func expectLatencies(t *testing.T, latency map[string][]api.LatencyBucket, want map[string]uint64) {
	t.Helper()
	for role, want := range want {
		var n uint64
		for _, b := range latency[role] {
			n += b.Count
			if b.FromMS >= b.ToMS {
				t.Errorf("bucket %+v", b)
			}
		}
		if n != want {
			t.Errorf("%d requests as %s, want %d: %v", n, role, want, latency)
		}
	}
}

// countingFleet counts how often it is asked for snapshots.
type countingFleet struct {
	fakeFleet
	asked int
}

func (a *countingFleet) Ask(ctx context.Context, question string, expected int) ([][]byte, int, error) {
	if question == "live" {
		a.asked++
	}
	return a.fakeFleet.Ask(ctx, question, expected)
}

// withStoppedClock runs a test with a server and a client in a bubble, whose clock
// advances only while all goroutines wait.
func withStoppedClock(t *testing.T, test func(t *testing.T, server *api.Server, asked *countingFleet, client *http.Client)) {
	t.Helper()
	if _, err := loadContract(); err != nil { // outside the bubble, because the document is kept for other tests
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		fleet := &countingFleet{}
		server, err := api.New(api.Config{Group: coalesce.Off[product.Product]{}, Store: &store{}, Mode: "off", Replica: "r",
			WriteTimeout: 100 * time.Second, Fleet: fleet})
		if err != nil {
			t.Fatal(err)
		}
		fleet.servers = []*api.Server{server}
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			client, conn := net.Pipe()
			l.conns <- conn
			return client, nil
		}}}
		test(t, server, fleet, client)
		client.CloseIdleConnections()
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestTheFleetIsAskedOnceASecondHoweverManyWatch(t *testing.T) {
	withStoppedClock(t, func(t *testing.T, _ *api.Server, asked *countingFleet, client *http.Client) {
		time.Sleep(time.Hour) // of the bubble's clock
		if asked.asked != 0 {
			t.Errorf("nobody watches, and the fleet was asked %d times", asked.asked)
		}
		var all []*stream
		for range 20 {
			all = append(all, watch(t, client, "http://replica"))
		}
		begin := time.Now()
		const seconds = 200 // longer than WriteTimeout
		for range seconds {
			for _, s := range all {
				s.snapshot(t)
			}
		}
		if took := time.Since(begin); asked.asked < seconds || asked.asked > seconds+1 || took > seconds*time.Second {
			t.Errorf("asked %d times in %v", asked.asked, took)
		}
		for _, s := range all {
			s.close()
		}
		synctest.Wait()
		before := asked.asked
		time.Sleep(time.Hour) // of the bubble's clock
		if asked.asked != before {
			t.Errorf("after the last has left, it was asked %d times more", asked.asked-before)
		}
	})
}

func TestThereIsRoomForSoManyWatchers(t *testing.T) {
	withStoppedClock(t, func(t *testing.T, _ *api.Server, _ *countingFleet, client *http.Client) {
		var all []*stream
		for range 64 {
			s := watch(t, client, "http://replica")
			all = append(all, s)
			if s.answer.status != http.StatusOK {
				t.Fatalf("status %d", s.answer.status)
			}
			go func() { // reads all events, like a browser
				for s.lines.Scan() {
				}
			}()
		}
		refused := watch(t, client, "http://replica")
		expectProblem(t, refused.answer, http.StatusServiceUnavailable)
		if refused.answer.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		all[0].close()
		synctest.Wait()
		if s := watch(t, client, "http://replica"); s.answer.status != http.StatusOK {
			t.Errorf("one has left, and the next gets status %d", s.answer.status)
		}
		for _, s := range all {
			s.close()
		}
	})
}

func TestAWatcherWhoDoesNotReadIsCutOffAndHoldsUpNobody(t *testing.T) {
	withStoppedClock(t, func(t *testing.T, _ *api.Server, _ *countingFleet, client *http.Client) {
		watcher := watch(t, client, "http://replica")
		stuck := watch(t, client, "http://replica") // is never read
		begin := time.Now()
		for range 30 {
			watcher.snapshot(t)
		}
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("30 snapshots took %v", took)
		}
		for stuck.lines.Scan() {
		}
		if stuck.lines.Err() == nil {
			t.Error("the stream of the watcher who did not read ended as if it were whole")
		}
		watcher.close()
	})
}

func TestShutdownWaitsForNoWatcher(t *testing.T) {
	for name, end := range map[string]func(*api.Server) error{
		"drain":    func(s *api.Server) error { s.Drain(); return nil },
		"shutdown": func(s *api.Server) error { return s.Shutdown(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			withStoppedClock(t, func(t *testing.T, server *api.Server, _ *countingFleet, client *http.Client) {
				reads := watch(t, client, "http://replica")
				stuck := watch(t, client, "http://replica")
				ended := make(chan error, 1)
				go func() {
					for {
						if _, ok := reads.next(); !ok {
							ended <- reads.lines.Err()
							return
						}
					}
				}()
				// By now a write to the client that does not read hangs, and its
				// timeout has not passed yet.
				time.Sleep(2500 * time.Millisecond)
				begin := time.Now()
				if err := end(server); err != nil {
					t.Error(err)
				}
				if err := <-ended; err != nil {
					t.Errorf("the stream ended with %v", err)
				}
				if took := time.Since(begin); took > time.Second {
					t.Errorf("it took %v", took)
				}
				stuck.close()
			})
		})
	}
}

func TestAStreamIsNeverSilentForLong(t *testing.T) {
	withStoppedClock(t, func(t *testing.T, _ *api.Server, asked *countingFleet, client *http.Client) {
		asked.err = errors.New("broken")
		asked.servers = nil // nobody answers, not even this replica
		s := watch(t, client, "http://replica")
		last := time.Now()
		comments := 0
		for comments < 5 && s.lines.Scan() {
			if gap := time.Since(last); gap > 5*time.Second {
				t.Errorf("silent for %v", gap)
			}
			last = time.Now()
			if strings.HasPrefix(s.lines.Text(), ":") {
				comments++
			}
		}
		s.close()
	})
}

func TestLatencyIsKnownToAnEighth(t *testing.T) {
	for _, took := range []time.Duration{0, time.Microsecond, 7 * time.Microsecond, 8 * time.Microsecond, 999 * time.Microsecond, 501 * time.Millisecond, 60 * time.Second} {
		var b api.LatencyBucket
		synctest.Test(t, func(t *testing.T) {
			s := &store{query: func(ctx context.Context, _ int32) (product.Product, error) {
				return product.Product{}, product.Hold(ctx, took)
			}}
			server, err := api.New(api.Config{Group: coalesce.Off[product.Product]{}, Store: s, Mode: "off", Replica: "r"})
			if err != nil {
				t.Fatal(err)
			}
			server.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/product/normal/1", nil))
			raw, err := server.Answer(t.Context(), "live")
			if err != nil {
				t.Fatal(err)
			}
			b = decode[api.ReplicaSnapshot](t, response{body: string(raw)}).Latency["normal"][0]
		})
		ms := float64(took) / float64(time.Millisecond)
		if ms < b.FromMS || ms >= b.ToMS || b.ToMS-b.FromMS > max(0.001, b.FromMS/8)+1e-9 {
			t.Errorf("%v is in %+v", took, b)
		}
	}
}
