package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/examples/internal/shop"
	"github.com/fleetcall/fleetcall/examples/internal/together"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gated is a database whose queries end when the test lets them.
type gated struct {
	*shop.Memory
	started chan string // of each query, its id
	release chan struct{}
}

func newGated() *gated { return &gated{shop.NewMemory(0), make(chan string, 100), make(chan struct{})} }

func (g *gated) Product(ctx context.Context, id string) (shop.Product, error) {
	g.started <- id
	select {
	case <-g.release:
		return g.Memory.Product(ctx, id)
	case <-ctx.Done():
		return shop.Product{}, ctx.Err()
	}
}

// replica is one that runs.
type replica struct {
	*service
	url string
}

func start(t *testing.T, redis *redisrig.Server, database shop.Database, opts ...distributed.Option) *replica {
	t.Helper()
	s, err := newService(redis.Client(), database, slog.New(slog.DiscardHandler), opts...)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, listener, time.Minute) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return &replica{s, "http://" + listener.Addr().String()}
}

// send returns an answer in a line: status, role, body.
func (r *replica) send(method, path, token, body string) string {
	request, err := http.NewRequest(method, r.url+path, strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	request.Host = "shop.example" // as behind a balancer
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
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

func fleetOf(t *testing.T, database shop.Database) ([]*replica, *together.Following) {
	t.Helper()
	redis, following := redisrig.Start(t), new(together.Following)
	return []*replica{start(t, redis, database, following.Options()...), start(t, redis, database, following.Options()...)}, following
}

// gather sends n requests to each replica, numbered where the path has {i}, and returns when all of them share an answer.
func gather(t *testing.T, n int, replicas []*replica, following *together.Following, path, token string) chan string {
	t.Helper()
	answers := make(chan string, n*len(replicas))
	var stats []func() distributed.Stats
	for _, r := range replicas {
		stats = append(stats, r.answers.Stats)
		for i := range n {
			go func() { answers <- r.send("GET", strings.ReplaceAll(path, "{i}", fmt.Sprint(i)), token, "") }()
		}
	}
	following.Wait(t, n, stats...)
	return answers
}

func TestRequestsOfAllReplicasRunOneHandler(t *testing.T) {
	database := newGated()
	replicas, following := fleetOf(t, database)
	answers := gather(t, 10, replicas, following, "/product/1?visit={i}&currency=EUR", "")
	close(database.release)
	roles := map[string]int{}
	for range cap(answers) {
		var status, role, body string
		if _, err := fmt.Sscan(<-answers, &status, &role, &body); err != nil || status != "200" || body != `{"id":"1","name":"Keyboard","price":49}` {
			t.Errorf("got %s %s %s, %v", status, role, body, err)
		}
		roles[role]++
	}
	if roles["leader"] != 1 || roles["remote-follower"] != 1 || roles["local-follower"] != 18 {
		t.Errorf("roles: %v", roles)
	}
	if len(database.started) != 1 {
		t.Errorf("%d queries, want 1", len(database.started))
	}
}

func TestAMissingProductIs404OnEveryReplica(t *testing.T) {
	database := newGated()
	replicas, following := fleetOf(t, database)
	answers := gather(t, 2, replicas, following, "/product/none", "")
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

func TestAUserSharesWithTheirOwnRequestsAlone(t *testing.T) {
	database := newGated()
	replicas, following := fleetOf(t, database)
	alice := gather(t, 3, replicas, following, "/cart", "a-token")
	bob := make(chan string, 1)
	go func() { bob <- replicas[0].send("GET", "/cart", "b-token", "") }()
	<-database.started
	<-database.started // bob's, while alice's runs
	close(database.release)
	for range cap(alice) {
		if answer := <-alice; !strings.HasPrefix(answer, "200 ") || !strings.Contains(answer, `"user":"alice"`) {
			t.Errorf("alice got %s", answer)
		}
	}
	if answer := <-bob; !strings.HasPrefix(answer, "200 leader ") || !strings.Contains(answer, `"user":"bob"`) {
		t.Errorf("bob got %s", answer)
	}
	if len(database.started) != 0 {
		t.Errorf("%d queries more than one for each user", len(database.started))
	}
	if answer := replicas[0].send("GET", "/cart", "", ""); !strings.HasPrefix(answer, "401 ") {
		t.Errorf("nobody got %s", answer)
	}
}

func TestChangesPass(t *testing.T) {
	database := newGated()
	close(database.release)
	replicas, _ := fleetOf(t, database)
	if answer := replicas[0].send("PUT", "/product/1/price", "", `{"price": 59}`); answer != "204  " && answer != "204 " {
		t.Errorf("got %q", answer)
	}
	if answer := replicas[1].send("GET", "/product/1", "", ""); !strings.HasSuffix(answer, `"price":59}`) {
		t.Errorf("got %s", answer)
	}
	if answer := replicas[1].send("PUT", "/product/none/price", "", `{"price": 59}`); !strings.HasPrefix(answer, "404 ") {
		t.Errorf("got %s", answer)
	}
}
