package coalescehttp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/coalesce/coalescetest"
)

func TestMain(m *testing.M) {
	logging.Disable() // what it says, the tests assert
	goleak.VerifyTestMain(m)
}

// patience is for what happens soon, unless the machine is very busy.
const patience = time.Minute

// eventually polls what no event announces to a test.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after %v: %s", patience, what)
		}
	}
}

// fleet is some replicas without a Redis.
type fleet struct {
	groups []*coalescetest.Group[*coalescehttp.Answer]
}

func newFleet(replicas int) *fleet {
	f, all := &fleet{}, coalescetest.NewFleet()
	for range replicas {
		f.groups = append(f.groups, coalescetest.NewGroup[*coalescehttp.Answer](all, "http"))
	}
	return f
}

// waiting returns how many callers wait, those included whose function runs.
func (f *fleet) waiting() (n int) {
	for _, g := range f.groups {
		n += g.Waiting()
	}
	return n
}

// gate is a server's door: what is inside waits until it is opened.
type gate struct {
	inside, entered atomic.Int64
	opened          chan struct{}
	once            sync.Once
}

func newGate() *gate { return &gate{opened: make(chan struct{})} }

func (g *gate) pass(ctx context.Context) error {
	g.entered.Add(1)
	g.inside.Add(1)
	defer g.inside.Add(-1)
	select {
	case <-g.opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) open() { g.once.Do(func() { close(g.opened) }) }

// serve starts a server on a real connection.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// answer is what a client gets.
type answer struct {
	status int
	header http.Header
	body   string
	err    error
}

func (a answer) role() string { return a.header.Get(coalescehttp.RoleHeader) }

// client has no connections left when the test ends.
func newClient(t testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 1000}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func get(ctx context.Context, c *http.Client, url string, fields ...string) <-chan answer {
	return request(ctx, c, http.MethodGet, url, fields...)
}

func request(ctx context.Context, c *http.Client, method, url string, fields ...string) <-chan answer {
	ch := make(chan answer, 1)
	go func() {
		r, err := http.NewRequestWithContext(ctx, method, url, nil)
		if err != nil {
			ch <- answer{err: err}
			return
		}
		for i := 0; i < len(fields); i += 2 {
			if fields[i] == "Host" {
				r.Host = fields[i+1]
				continue
			}
			r.Header.Add(fields[i], fields[i+1])
		}
		resp, err := c.Do(r)
		if err != nil {
			ch <- answer{err: err}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		ch <- answer{resp.StatusCode, resp.Header, string(body), err}
	}()
	return ch
}

func TestManyClientsOfTwoReplicasShareOneRunOfTheHandler(t *testing.T) {
	f, g := newFleet(2), newGate()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		w.Header().Set("X-Made", "once")
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, "hello")
	})
	client := newClient(t)
	var answers []<-chan answer
	for _, group := range f.groups {
		url := serve(t, coalescehttp.Middleware(group)(handler))
		for range 5 {
			answers = append(answers, get(t.Context(), client, url+"/page", "Host", "same"))
		}
	}
	eventually(t, "all wait", func() bool { return f.waiting() == 10 && g.inside.Load() == 1 })
	g.open()
	roles, flights := map[string]int{}, map[string]int{}
	for _, ch := range answers {
		a := <-ch
		if a.err != nil || a.status != http.StatusAccepted || a.body != "hello" || a.header.Get("X-Made") != "once" {
			t.Errorf("an answer is %+v", a)
		}
		roles[a.role()]++
		flights[a.header.Get(coalescehttp.FlightHeader)]++
	}
	if g.entered.Load() != 1 || len(flights) != 1 || roles["leader"] != 1 {
		t.Errorf("the handler ran %d times, roles %v, flights %v", g.entered.Load(), roles, flights)
	}
}

func TestManyCallersOfTwoReplicasShareOneRequest(t *testing.T) {
	f, g := newFleet(2), newGate()
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		w.Header().Set("X-Made", "once")
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprint(w, "hello")
	}))
	base := newClient(t).Transport
	var answers []<-chan answer
	for _, group := range f.groups {
		client := &http.Client{Transport: coalescehttp.NewTransport(base, group)}
		for range 5 {
			answers = append(answers, get(t.Context(), client, server+"/page"))
		}
	}
	eventually(t, "all wait", func() bool { return f.waiting() == 10 && g.inside.Load() == 1 })
	g.open()
	roles, flights := map[string]int{}, map[string]int{}
	for _, ch := range answers {
		a := <-ch
		if a.err != nil || a.status != http.StatusAccepted || a.body != "hello" || a.header.Get("X-Made") != "once" {
			t.Errorf("an answer is %+v", a)
		}
		roles[a.role()]++
		flights[a.header.Get(coalescehttp.FlightHeader)]++
	}
	if g.entered.Load() != 1 || len(flights) != 1 || roles["leader"] != 1 {
		t.Errorf("the server was asked %d times, roles %v, flights %v", g.entered.Load(), roles, flights)
	}
}

func TestPrivateAnswersAreEachClientsOwnAndNobodyQueuesForThem(t *testing.T) {
	f, first, g := newFleet(2), newGate(), newGate()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "private")
		if first.entered.Load() == 0 {
			_ = first.pass(r.Context())
		}
		w.WriteHeader(http.StatusOK)
		_ = g.pass(r.Context())
		fmt.Fprint(w, "hello")
	})
	client := newClient(t)
	var answers []<-chan answer
	for _, group := range f.groups {
		url := serve(t, coalescehttp.Middleware(group)(handler))
		for range 5 {
			answers = append(answers, get(t.Context(), client, url+"/page", "Host", "same"))
		}
	}
	eventually(t, "all wait", func() bool { return f.waiting() == 10 && first.inside.Load() == 1 })
	first.open()
	eventually(t, "all are inside at once", func() bool { return g.inside.Load() == 10 })
	g.open()
	for _, ch := range answers {
		if a := <-ch; a.err != nil || a.role() != "alone" || a.body != "hello" {
			t.Errorf("%+v", a)
		}
	}
}
