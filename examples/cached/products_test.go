package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/examples/internal/shop"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// calm is a time that no stall of a busy machine reaches.
const calm = time.Minute

// onItsWay is longer than a reply takes on its way: by what a leader knows of Redis' clock,
// a function that ends sooner after a follower's join may have ended before it.
const onItsWay = 100 * time.Millisecond

// gated is a database whose queries end when the test lets them.
type gated struct {
	*shop.Memory
	started chan string
	release chan struct{}
}

func (g *gated) Product(ctx context.Context, id string) (shop.Product, error) {
	row, err := g.Memory.Product(ctx, id)
	g.started <- id
	select {
	case <-g.release:
		return row, err
	case <-ctx.Done():
		return shop.Product{}, ctx.Err()
	}
}

type followers struct{ atomic.Int64 }

func (f *followers) Followed(context.Context, distributed.Followed) { f.Add(1) }

type fleet struct {
	t         *testing.T
	redis     *redisrig.Server
	database  *gated
	following followers
	replicas  []*products
	heard     []chan string // by each replica
}

func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	f := &fleet{t: t, redis: redisrig.Start(t), database: &gated{shop.NewMemory(0), make(chan string, 100), make(chan struct{})}}
	for range n {
		p, err := newProducts(context.Background(), f.redis.Client(), f.database, slog.New(slog.DiscardHandler), distributed.WithHooks(&f.following),
			distributed.WithRedisTimeout(calm), distributed.WithLeaseTTL(calm))
		if err != nil {
			t.Fatal(err)
		}
		heard := make(chan string, 100)
		p.onHeard = func(id string) { heard <- id }
		t.Cleanup(func() {
			if err := p.close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		f.replicas, f.heard = append(f.replicas, p), append(f.heard, heard)
	}
	return f
}

type got struct {
	row  shop.Product
	role coalesce.Role
	err  error
}

// ask asks each replica for a product, and returns when all share one query.
func (f *fleet) ask(id string) []chan got {
	f.t.Helper()
	answers := make([]chan got, len(f.replicas))
	before := f.following.Load()
	for i, p := range f.replicas {
		answers[i] = make(chan got, 1)
		go func() {
			row, role, err := p.get(context.Background(), id)
			answers[i] <- got{row, role, err}
		}()
	}
	rig.Wait(f.t, "all replicas to share a query", func() error {
		if follow := f.following.Load() - before; follow != int64(len(f.replicas)-1) {
			return fmt.Errorf("%d follow", follow)
		}
		return nil
	})
	time.Sleep(onItsWay)
	return answers
}

func TestWhatNoCacheHasIsOneQueryAndThenInEveryCache(t *testing.T) {
	f := newFleet(t, 3)
	answers := f.ask("1")
	close(f.database.release)
	for _, answer := range answers {
		if a := <-answer; a.err != nil || a.row.Name != "Keyboard" || a.role == coalesce.Cached {
			t.Errorf("got %+v", a)
		}
	}
	for _, p := range f.replicas {
		if row, role, err := p.get(t.Context(), "1"); err != nil || row.Name != "Keyboard" || role != coalesce.Cached {
			t.Errorf("the second time: %v, %v, %v", row, role, err)
		}
	}
	if n := len(f.database.started); n != 1 {
		t.Errorf("%d queries, want 1", n)
	}
}

func TestAChangeReachesEveryCache(t *testing.T) {
	f := newFleet(t, 3)
	close(f.database.release)
	for _, p := range f.replicas {
		if _, _, err := p.get(t.Context(), "1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.replicas[0].setPrice(t.Context(), "1", 59); err != nil {
		t.Fatal(err)
	}
	for i, p := range f.replicas {
		<-f.heard[i]
		if row, _, err := p.get(t.Context(), "1"); err != nil || row.Price != 59 {
			t.Errorf("replica %d: %v, %v", i, row, err)
		}
	}
}

// A query that has read the old row ends after the change: nobody caches it.
func TestAQueryFromBeforeAChangeStaysInNoCache(t *testing.T) {
	f := newFleet(t, 2)
	answers := f.ask("1")
	<-f.database.started
	if err := f.replicas[1].setPrice(t.Context(), "1", 59); err != nil {
		t.Fatal(err)
	}
	for _, heard := range f.heard {
		<-heard
	}
	close(f.database.release)
	for _, answer := range answers {
		if a := <-answer; a.err != nil {
			t.Errorf("got %+v", a)
		}
	}
	for i, p := range f.replicas {
		if row, _, err := p.get(t.Context(), "1"); err != nil || row.Price != 59 {
			t.Errorf("replica %d: %v, %v", i, row, err)
		}
	}
}

func TestACacheThatCannotHearIsEmptied(t *testing.T) {
	f := newFleet(t, 1)
	close(f.database.release)
	p := f.replicas[0]
	if _, _, err := p.get(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	if err := f.redis.Client().Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	rig.Wait(t, "the cache to be emptied", func() error {
		if _, ok := p.cache.GetIfPresent("1"); ok {
			return errors.New("it has the product")
		}
		return nil
	})
}

func TestMissingProductsAreNotCached(t *testing.T) {
	f := newFleet(t, 1)
	close(f.database.release)
	server := httptest.NewServer(handler(f.replicas[0]))
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	for range 2 {
		response, err := http.Get(server.URL + "/product/none")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || response.StatusCode != http.StatusNotFound || !strings.Contains(string(body), "no such product") {
			t.Errorf("%d %s, %v", response.StatusCode, body, err)
		}
	}
	if n := len(f.database.started); n != 2 {
		t.Errorf("%d queries, want 2", n)
	}
}
