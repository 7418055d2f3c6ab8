package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/examples/internal/shop"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// calm is a time that no stall of a busy machine reaches.
const calm = time.Minute

// patient is the same for Redis. When that is gone, Close waits for so long, at most, for a
// server that can be told of what has ended.
const patient = calm / 6

// onItsWay is longer than a reply takes on its way: by what a leader knows of Redis' clock,
// a function that ends sooner after a follower's join may have ended before it.
const onItsWay = 100 * time.Millisecond

// gated is a database whose queries end when the test lets them.
type gated struct {
	*shop.Memory
	started chan string // of each query, its id
	release chan struct{}
}

func newGated() *gated {
	return &gated{shop.NewMemory(0), make(chan string, 100), make(chan struct{})}
}

func (g *gated) Product(ctx context.Context, id string) (shop.Product, error) {
	row, err := g.Memory.Product(ctx, id) // what it read before it was held up
	g.started <- id
	select {
	case <-g.release:
		return row, err
	case <-ctx.Done():
		return shop.Product{}, ctx.Err()
	}
}

// followers counts the flights that follow one of another replica.
type followers struct{ atomic.Int64 }

func (f *followers) Followed(context.Context, distributed.Followed) { f.Add(1) }

// replica is one that runs.
type replica struct {
	*service
	url   string
	stop  context.CancelFunc
	ended chan error
}

func start(t *testing.T, redis *redisrig.Server, database shop.Database, grace time.Duration, hooks ...distributed.Hook) *replica {
	t.Helper()
	s, err := newService(redis.Client(), database, slog.New(slog.DiscardHandler), distributed.WithHooks(hooks...),
		distributed.WithRedisTimeout(patient), distributed.WithLeaseTTL(patient))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &replica{s, "http://" + listener.Addr().String(), stop, make(chan error, 1)}
	go func() {
		r.ended <- s.run(ctx, listener, grace)
		close(r.ended)
	}()
	t.Cleanup(func() {
		stop()
		<-r.ended
		http.DefaultClient.CloseIdleConnections()
	})
	return r
}

// send returns an answer in a line: status, role, body.
func (r *replica) send(method, path, body string) string {
	request, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s %s", response.StatusCode, response.Header.Get("X-Coalesce-Role"), strings.TrimSpace(string(text)))
}

func (r *replica) get(id string) string { return r.send("GET", "/product/"+id, "") }

// gather sends n requests to each replica, and returns when all of them share the one
// query that runs.
func gather(t *testing.T, n int, replicas []*replica, following *followers, id string) chan string {
	t.Helper()
	answers := make(chan string, n*len(replicas))
	before := following.Load()
	for _, r := range replicas {
		for range n {
			go func() { answers <- r.get(id) }()
		}
	}
	rig.Wait(t, "all requests to share a query", func() error {
		for _, r := range replicas {
			if waiting := r.products.Stats().Local.Waiting; waiting != int64(n) {
				return fmt.Errorf("%d of %d wait", waiting, n)
			}
		}
		if follow := following.Load() - before; follow != int64(len(replicas)-1) {
			return fmt.Errorf("%d replicas follow", follow)
		}
		return nil
	})
	time.Sleep(onItsWay)
	return answers
}

func fleetOf(t *testing.T, n int, database shop.Database) ([]*replica, *followers) {
	t.Helper()
	redis := redisrig.Start(t)
	following := new(followers)
	var replicas []*replica
	for range n {
		replicas = append(replicas, start(t, redis, database, time.Minute, following))
	}
	return replicas, following
}

func TestRequestsOfAllReplicasShareOneQuery(t *testing.T) {
	database := newGated()
	replicas, following := fleetOf(t, 3, database)
	answers := gather(t, 10, replicas, following, "1")
	close(database.release)
	roles := map[string]int{}
	for range cap(answers) {
		answer := <-answers
		status, rest, _ := strings.Cut(answer, " ")
		role, body, _ := strings.Cut(rest, " ")
		if status != "200" || body != `{"id":"1","name":"Keyboard","price":49}` {
			t.Errorf("got %s", answer)
		}
		roles[role]++
	}
	if len(database.started) != 1 {
		t.Errorf("%d queries, want 1", len(database.started))
	}
	// Those who follow in a follower's process took another caller's result of their own.
	if roles["leader"] != 1 || roles["remote-follower"] != 2 || roles["local-follower"] != 27 {
		t.Errorf("roles: %v", roles)
	}
}

func TestAMissingProductIs404OnEveryReplica(t *testing.T) {
	database := newGated()
	replicas, following := fleetOf(t, 3, database)
	answers := gather(t, 2, replicas, following, "none")
	close(database.release)
	for range cap(answers) {
		if answer := <-answers; !strings.HasPrefix(answer, "404 ") {
			t.Errorf("got %s", answer)
		}
	}
	if len(database.started) != 1 {
		t.Errorf("%d queries, want 1", len(database.started))
	}
}

func TestNobodyWhoComesAfterAnUpdateSharesAQueryFromBefore(t *testing.T) {
	database := newGated()
	replicas, following := fleetOf(t, 2, database)
	before := gather(t, 1, replicas, following, "1")
	<-database.started
	if answer := replicas[0].send("PUT", "/product/1/price", `{"price": 59}`); !strings.HasPrefix(answer, "204") {
		t.Fatalf("got %s", answer)
	}
	after := make(chan string, 1)
	go func() { after <- replicas[0].get("1") }()
	<-database.started // a query of its own
	close(database.release)
	if answer := <-after; !strings.HasSuffix(answer, `"price":59}`) {
		t.Errorf("a request after the update got %s", answer)
	}
	for range cap(before) {
		if answer := <-before; !strings.HasSuffix(answer, `"price":49}`) {
			t.Errorf("a request before the update got %s", answer)
		}
	}
}

func TestAReplicaThatStopsFinishesWhatItLeads(t *testing.T) {
	database := newGated()
	replicas, following := fleetOf(t, 2, database)
	answers := gather(t, 5, replicas, following, "1")
	for _, r := range replicas {
		r.stop()
	}
	for _, r := range replicas {
		rig.Wait(t, "the replica to stop", func() error {
			if !r.stopping.Load() {
				return fmt.Errorf("it takes requests")
			}
			return nil
		})
	}
	close(database.release)
	for range cap(answers) {
		if answer := <-answers; !strings.HasPrefix(answer, "200 ") {
			t.Errorf("got %s", answer)
		}
	}
	for _, r := range replicas {
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
	}
}

func TestAnotherReplicaTakesOverWhenTheGracePeriodIsOver(t *testing.T) {
	redis, database, following := redisrig.Start(t), newGated(), new(followers)
	leader := start(t, redis, database, 0, following)
	led := make(chan string, 1)
	go func() { led <- leader.get("1") }()
	<-database.started
	follower := start(t, redis, database, time.Minute, following)
	followed := make(chan string, 1)
	go func() { followed <- follower.get("1") }()
	rig.Wait(t, "the other replica to follow", func() error {
		if following.Load() != 1 {
			return fmt.Errorf("it does not")
		}
		return nil
	})
	leader.stop()
	<-database.started // the follower's query
	close(database.release)
	if answer := <-followed; !strings.HasPrefix(answer, "200 leader ") {
		t.Errorf("the follower's caller got %s", answer)
	}
	if answer := <-led; !strings.HasPrefix(answer, "503 ") {
		t.Errorf("the stopped leader's caller got %s", answer)
	}
}

func TestAServiceWithoutRedisIsHealthyAndAnswers(t *testing.T) {
	redis := redisrig.Start(t)
	database := newGated()
	close(database.release)
	r := start(t, redis, database, time.Minute)
	if answer := r.send("GET", "/healthz", ""); answer != `200  {"redis":"up","status":"ok"}` {
		t.Errorf("got %s", answer)
	}
	redis.Kill()
	if answer := r.get("2"); !strings.HasPrefix(answer, "200 fallback ") {
		t.Errorf("got %s", answer)
	}
	if answer := r.send("GET", "/healthz", ""); answer != `200  {"redis":"down","status":"ok"}` {
		t.Errorf("got %s", answer)
	}
}
