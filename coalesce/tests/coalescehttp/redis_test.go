package coalescehttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// calm is a Redis timeout that a busy machine keeps.
const calm = 10 * time.Second

// replica is one with connections of its own to a Redis.
type replica struct {
	fleet *distributed.Fleet
	group *distributed.Group[*coalescehttp.Answer]

	follows atomic.Int64 // flights of other replicas that it has joined
}

// Followed makes replica a distributed.FollowHook.
func (r *replica) Followed(context.Context, distributed.Followed) { r.follows.Add(1) }

// waiting returns how many callers wait here, those that lead included.
func (r *replica) waiting() int { return int(r.fleet.Stats().Local.Waiting) }

func onRedis(t *testing.T, server *redisrig.Server, n int, opts ...distributed.GroupOption) (all []*replica) {
	t.Helper()
	for range n {
		client := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true, ReadTimeout: calm, WriteTimeout: calm, DialTimeout: calm})
		r := new(replica)
		fleet, err := distributed.Open(client, distributed.WithRedisTimeout(calm), distributed.WithLeaseTTL(2*calm), distributed.WithHooks(r))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := fleet.Close(ctx); err != nil {
				t.Errorf("Close: %v", err)
			}
			_ = client.Close()
		})
		opts := append([]distributed.GroupOption{distributed.WithCodec(coalescehttp.Codec())}, opts...)
		group, err := distributed.NewGroup[*coalescehttp.Answer](fleet, "http", opts...)
		if err != nil {
			t.Fatal(err)
		}
		r.fleet, r.group = fleet, group
		all = append(all, r)
	}
	return all
}

// behind starts a server for each replica with a handler behind a Middleware.
func behind(t *testing.T, all []*replica, h http.HandlerFunc, opts ...coalescehttp.Option) (urls []string) {
	t.Helper()
	for _, r := range all {
		urls = append(urls, quiet(t, coalescehttp.Middleware(r.group, opts...)(h))+"/page")
	}
	return urls
}

// leadAndFollow has one request lead on the first replica, and one follow on the second.
func leadAndFollow(t *testing.T, all []*replica, urls []string, g *gate) (leader, follower <-chan answer) {
	t.Helper()
	client := newClient(t)
	leader = ask(t, client, urls[0])
	eventually(t, "the first leads", func() bool { return g.inside.Load() == 1 })
	follower = ask(t, client, urls[1])
	eventually(t, "the second follows", func() bool { return all[1].follows.Load() == 1 })
	return leader, follower
}

func TestAnAnswerTravelsThroughRedis(t *testing.T) {
	g := newGate()
	all := onRedis(t, redisrig.Start(t), 2)
	urls := behind(t, all, func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		w.Header().Add("Link", "<a>")
		w.Header().Add("Link", "<b>")
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write([]byte(strings.Repeat("\x00\xff", 50_000)))
	})
	leader, follower := leadAndFollow(t, all, urls, g)
	g.open()
	a, b := <-leader, <-follower
	if seen(a) != seen(b) || len(b.body) != 100_000 || a.role() != "leader" || b.role() != "remote-follower" {
		t.Errorf("the leader has %s\nas %q, the follower %s\nas %q", seen(a), a.role(), seen(b), b.role())
	}
	if a.header.Get(coalescehttp.FlightHeader) != b.header.Get(coalescehttp.FlightHeader) {
		t.Error("they have two flights")
	}
}

func TestAPrivateStreamFreesItsLeaseAndOutlastsTheFlightTimeout(t *testing.T) {
	const timeout = time.Second
	g, streams := newGate(), newGate()
	all := onRedis(t, redisrig.Start(t), 2, distributed.WithFlightTimeout(timeout))
	began := time.Now()
	urls := behind(t, all, func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		if err := streams.pass(r.Context()); err != nil {
			t.Errorf("a stream ended after %v: %v", time.Since(began), err)
		}
		_, _ = io.WriteString(w, "data: 2\n\n")
	})
	leader, follower := leadAndFollow(t, all, urls, g)
	g.open()
	eventually(t, "both are streamed to", func() bool { return streams.inside.Load() == 2 })
	eventually(t, "no flight lasts", func() bool {
		return all[0].fleet.Stats().Distributed.ActiveFlights+all[1].fleet.Stats().Distributed.ActiveFlights == 0
	})
	time.Sleep(2*timeout - time.Since(began)) // both would have ended
	streams.open()
	for _, ch := range []<-chan answer{leader, follower} {
		if a := <-ch; a.body != "data: 1\n\ndata: 2\n\n" || a.role() != "alone" {
			t.Errorf("%+v", a)
		}
	}
}

func TestAHandlerThatIsLateIsATimeoutForAllButItsOwnClientGetsWhatItSays(t *testing.T) {
	g := newGate()
	all := onRedis(t, redisrig.Start(t), 2, distributed.WithFlightTimeout(time.Second))
	urls := behind(t, all, func(w http.ResponseWriter, r *http.Request) {
		if err := g.pass(r.Context()); err != nil {
			http.Error(w, "gave up", http.StatusBadGateway)
		}
	})
	leader, follower := leadAndFollow(t, all, urls, g)
	if a := <-leader; a.status != http.StatusBadGateway || a.body != "gave up\n" {
		t.Errorf("the leader has %+v", a)
	}
	if a := <-follower; a.status != http.StatusGatewayTimeout || a.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("the follower has %+v", a)
	}
}

func TestAServerThatIsLateIsATimeoutForEveryCaller(t *testing.T) {
	g := newGate()
	all := onRedis(t, redisrig.Start(t), 2, distributed.WithFlightTimeout(time.Second))
	server := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _ = g.pass(r.Context()) }))
	base := newClient(t).Transport
	var answers []<-chan answer
	for _, r := range all {
		answers = append(answers, get(t.Context(), &http.Client{Transport: coalescehttp.NewTransport(base, r.group)}, server+"/page"))
	}
	for _, ch := range answers {
		err := (<-ch).err
		var timeout interface{ Timeout() bool }
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("a caller has %v", err)
		}
	}
}

func TestABodyThatOutlastsTheFlightIsTheLeadersAloneBeforeItsEnd(t *testing.T) {
	g := newGate()
	all := onRedis(t, redisrig.Start(t), 2, distributed.WithFlightTimeout(2*time.Second))
	urls := behind(t, all, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "first ")
		if err := g.pass(r.Context()); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, "last")
	})
	leader, follower := leadAndFollow(t, all, urls, g)
	eventually(t, "the follower's own handler runs", func() bool { return g.inside.Load() == 2 })
	g.open()
	for _, ch := range []<-chan answer{leader, follower} {
		if a := <-ch; a.body != "first last" || a.role() != "alone" {
			t.Errorf("%+v", a)
		}
	}
}

func TestRedisIsKilledWhileARequestIsAnswered(t *testing.T) {
	server, g := redisrig.Start(t), newGate()
	all := onRedis(t, server, 2)
	urls := behind(t, all, func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		_, _ = io.WriteString(w, "page")
	})
	leader, follower := leadAndFollow(t, all, urls, g)
	server.Kill()
	eventually(t, "the follower's own handler runs", func() bool { return g.inside.Load() == 2 })
	g.open()
	if a := <-leader; a.body != "page" || a.role() != "leader" {
		t.Errorf("the leader has %+v", a)
	}
	if a := <-follower; a.body != "page" || a.role() != "fallback" {
		t.Errorf("the follower has %+v", a)
	}
}

func TestAGroupThatFailsClosedIsUnavailableWithoutRedis(t *testing.T) {
	server := redisrig.Start(t)
	all := onRedis(t, server, 1, distributed.WithFailClosed())
	urls := behind(t, all, func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") })
	server.Kill()
	a := <-ask(t, newClient(t), urls[0])
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("%+v", a)
	}
}

func TestAClosedFleetsRequestsAreAlone(t *testing.T) {
	all := onRedis(t, redisrig.Start(t), 1)
	urls := behind(t, all, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") })
	if err := all[0].fleet.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := <-ask(t, newClient(t), urls[0]); a.body != "page" || a.role() != "alone" {
		t.Errorf("%+v", a)
	}
}

// TestACrowdOfClientsWaitsForOneHandler is a thousand clients of three replicas.
func TestACrowdOfClientsWaitsForOneHandler(t *testing.T) {
	g := newGate()
	all := onRedis(t, redisrig.Start(t), 3)
	urls := behind(t, all, func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		fmt.Fprintf(w, "page %s", strings.Repeat("x", 5000))
	})
	client := newClient(t)
	answers := make([]<-chan answer, 1000)
	for i := range answers {
		answers[i] = ask(t, client, urls[i%len(urls)])
	}
	eventually(t, "all wait", func() bool {
		waiting, follow := 0, 0
		for _, r := range all {
			waiting, follow = waiting+r.waiting(), follow+int(r.follows.Load())
		}
		return waiting == len(answers) && follow == len(all)-1
	})
	// On a busy machine, who came last may have come after the end of the flight for all
	// that its replica knows of Redis' clock, and begins another: so it is counted before.
	if n := g.entered.Load(); n != 1 {
		t.Errorf("%d handlers ran", n)
	}
	g.open()
	for _, ch := range answers {
		if a := <-ch; a.err != nil || len(a.body) != 5005 || a.role() == "alone" {
			t.Fatalf("%+v", a)
		}
	}
}
