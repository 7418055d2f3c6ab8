package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/examples/grpc/shoppb"
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
	address string
	stop    context.CancelFunc
	ended   chan error
}

func start(t *testing.T, redis *redisrig.Server, database shop.Database, grace time.Duration, opts ...distributed.Option) *replica {
	t.Helper()
	client := redis.Client()
	s, err := newService(client, database, slog.New(slog.DiscardHandler), opts...)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &replica{s, listener.Addr().String(), stop, make(chan error, 1)}
	go func() {
		r.ended <- s.run(ctx, listener, grace)
		close(r.ended)
	}()
	t.Cleanup(func() {
		stop()
		<-r.ended
	})
	return r
}

func (r *replica) client(t *testing.T) shoppb.ProductsClient {
	t.Helper()
	conn, err := grpc.NewClient(r.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return shoppb.NewProductsClient(conn)
}

// get asks in the way of the command.
func (r *replica) get(t *testing.T, id string) string {
	var out bytes.Buffer
	if err := get(t.Context(), &out, r.address, id); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(out.String())
}

func gather(t *testing.T, n int, replicas []*replica, following *together.Following, id string) chan string {
	t.Helper()
	answers := make(chan string, n*len(replicas))
	var stats []func() distributed.Stats
	for _, r := range replicas {
		stats = append(stats, r.calls.Stats)
		for range n {
			go func() { answers <- r.get(t, id) }()
		}
	}
	following.Wait(t, n, stats...)
	return answers
}

func TestCallsOfAllReplicasShareOneQuery(t *testing.T) {
	redis, database, following := redisrig.Start(t), newGated(), new(together.Following)
	replicas := []*replica{start(t, redis, database, time.Minute, following.Options()...), start(t, redis, database, time.Minute, following.Options()...)}
	answers := gather(t, 5, replicas, following, "1")
	close(database.release)
	roles := map[string]int{}
	for range cap(answers) {
		role, product, _ := strings.Cut(<-answers, " ")
		if product != "Keyboard 49" {
			t.Errorf("%s got %s", role, product)
		}
		roles[role]++
	}
	if roles["leader"] != 1 || roles["remote-follower"] != 1 || roles["local-follower"] != 8 {
		t.Errorf("roles: %v", roles)
	}
	if len(database.started) != 1 {
		t.Errorf("%d queries, want 1", len(database.started))
	}
}

func TestAMissingProductIsNotFoundOnEveryReplica(t *testing.T) {
	redis, database, following := redisrig.Start(t), newGated(), new(together.Following)
	replicas := []*replica{start(t, redis, database, time.Minute, following.Options()...), start(t, redis, database, time.Minute, following.Options()...)}
	answers := gather(t, 1, replicas, following, "none")
	close(database.release)
	want := status.Error(codes.NotFound, `there is no product "none"`).Error()
	for range cap(answers) {
		if answer := <-answers; answer != want {
			t.Errorf("got %s", answer)
		}
	}
	if len(database.started) != 1 {
		t.Errorf("%d queries, want 1", len(database.started))
	}
}

func TestChangesAreNotMerged(t *testing.T) {
	database := newGated()
	close(database.release)
	client := start(t, redisrig.Start(t), database, time.Minute).client(t)
	for range 2 {
		product, err := client.SetPrice(t.Context(), &shoppb.SetPriceRequest{Id: "1", Price: 59})
		if err != nil || product.GetPrice() != 59 {
			t.Errorf("got %v, %v", product, err)
		}
	}
	if len(database.started) != 2 {
		t.Errorf("%d queries, want 2", len(database.started))
	}
}

func TestAReplicaThatStopsFinishesWhatItLeads(t *testing.T) {
	redis, database, following := redisrig.Start(t), newGated(), new(together.Following)
	replicas := []*replica{start(t, redis, database, time.Minute, following.Options()...), start(t, redis, database, time.Minute, following.Options()...)}
	answers := gather(t, 2, replicas, following, "1")
	for _, r := range replicas {
		r.stop()
	}
	close(database.release)
	for range cap(answers) {
		if answer := <-answers; !strings.HasSuffix(answer, "Keyboard 49") {
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
	redis, database, following := redisrig.Start(t), newGated(), new(together.Following)
	leader := start(t, redis, database, 0, following.Options()...)
	led := make(chan string, 1)
	go func() { led <- leader.get(t, "1") }()
	<-database.started
	follower := start(t, redis, database, time.Minute, following.Options()...)
	followed := make(chan string, 1)
	go func() { followed <- follower.get(t, "1") }()
	following.Wait(t, 1, leader.calls.Stats, follower.calls.Stats)
	leader.stop()
	<-database.started // the follower's query
	close(database.release)
	if answer := <-followed; answer != "leader Keyboard 49" {
		t.Errorf("the follower's caller got %s", answer)
	}
	if answer := <-led; !strings.HasPrefix(answer, fmt.Sprintf("rpc error: code = %s ", codes.Unavailable)) {
		t.Errorf("the stopped leader's caller got %s", answer)
	}
}
