package httpmatrix

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
)

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

// Rows returns all rows.
func Rows() []Row { return append(append([]Row{}, requests...), answers...) }

// Run holds a front to all rows, and to what all of them have in common.
func Run(t *testing.T, front Front) {
	for _, row := range Rows() {
		name := row.Rule
		t.Run(strings.ReplaceAll(name, "/", "|"), func(t *testing.T) { row.run(t, front) })
	}
	t.Run("two users never see each other's pages, nor wait for their own", func(t *testing.T) { privatePages(t, front) })
}

// origin is the server behind a front. It answers when it is told to.
type origin struct {
	row     Row
	entered atomic.Int64
	inside  atomic.Int64
	begin   chan struct{}
}

// ServeHTTP makes origin an http.Handler.
func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	run := o.entered.Add(1)
	o.inside.Add(1)
	defer o.inside.Add(-1)
	select {
	case <-o.begin:
	case <-r.Context().Done():
		return
	}
	header := w.Header()
	header.Set("X-Run", fmt.Sprint(run))
	a := o.row.Answer
	for i := 0; i < len(a.Fields); i += 2 {
		header.Add(a.Fields[i], a.Fields[i+1])
	}
	if a.Status != 0 || a.NoBody {
		w.WriteHeader(max(a.Status, http.StatusOK))
	}
	switch {
	case a.Handler != nil:
		a.Handler(w, r)
	case !a.NoBody:
		fmt.Fprintf(w, "answer %d", run)
	}
	for i := 0; i < len(a.Trailer); i += 2 {
		header.Set(a.Trailer[i], a.Trailer[i+1])
	}
}

// got is what a client gets.
type got struct {
	status int
	header http.Header
	body   string
	err    error
}

// client has no connections left when the test ends. It follows no redirects and decodes
// nothing.
func newClient(t testing.TB) *http.Transport {
	transport := &http.Transport{MaxIdleConnsPerHost: 1000, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// send sends a request on a goroutine of its own.
func send(ctx context.Context, client http.RoundTripper, url string, q Request) <-chan got {
	ch := make(chan got, 1)
	go func() {
		var body io.Reader
		if q.Body != "" {
			body = strings.NewReader(q.Body)
		}
		r, err := http.NewRequestWithContext(ctx, q.Method, url+q.Target, body)
		if err != nil {
			ch <- got{err: err}
			return
		}
		r.Host = q.Host
		for i := 0; i < len(q.Fields); i += 2 {
			r.Header.Add(q.Fields[i], q.Fields[i+1])
		}
		resp, err := client.RoundTrip(r)
		if err != nil {
			ch <- got{err: err}
			return
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		ch <- got{resp.StatusCode, resp.Header, string(data), err}
	}()
	return ch
}

func (row Row) run(t *testing.T, front Front) {
	o := &origin{row: row, begin: make(chan struct{})}
	replicas := front.Start(t, o, 2, row.Settings)
	client := newClient(t)
	first := row.First.like(Request{})
	second := row.Second.like(first)

	one := send(t.Context(), client, replicas.URLs[0], first)
	eventually(t, "the first request is answered", func() bool { return o.inside.Load() == 1 })
	two := send(t.Context(), client, replicas.URLs[1], second)
	waits := row.Want == Shared || row.Want == Unshared
	eventually(t, "the second request waits for the first, or is answered too", func() bool {
		return o.inside.Load() == 2 || waits && replicas.Waiting() == 2
	})
	if inside := o.inside.Load(); waits != (inside == 1) {
		t.Errorf("%d requests are answered at once", inside)
	}
	close(o.begin)
	a, b := <-one, <-two
	row.check(t, o, a, b)
}

// check checks what the two clients got.
func (row Row) check(t *testing.T, o *origin, a, b got) {
	t.Helper()
	for i, g := range []got{a, b} {
		if g.err != nil {
			t.Fatalf("answer %d: %v", i+1, g.err)
		}
		if want := row.Answer.Status; want != 0 && g.status != want {
			t.Errorf("answer %d has the status %d, not %d", i+1, g.status, want)
		}
		if g.header.Get(coalescehttp.RoleHeader) == "" {
			t.Errorf("answer %d has no role", i+1)
		}
	}
	runs := o.entered.Load()
	roles := [2]string{a.header.Get(coalescehttp.RoleHeader), b.header.Get(coalescehttp.RoleHeader)}
	flights := [2]string{a.header.Get(coalescehttp.FlightHeader), b.header.Get(coalescehttp.FlightHeader)}
	same := a.header.Get("X-Run") == b.header.Get("X-Run")
	fine := false
	switch row.Want {
	case Shared:
		fine = runs == 1 && same && a.body == b.body && roles == [2]string{"leader", "remote-follower"} && flights[0] != "" && flights[0] == flights[1]
	case Apart:
		fine = runs == 2 && !same && flights[0] != flights[1] && roles[0] == "leader"
	case Alone:
		fine = runs == 2 && !same && roles == [2]string{"alone", "alone"} && flights == [2]string{}
	case Unshared:
		// Where only the second differs, the first is a flight's all the same.
		fine = runs == 2 && !same && roles[1] != "remote-follower" && flights[1] != flights[0] || runs == 2 && !same && flights == [2]string{}
	}
	if !fine {
		t.Errorf("%d runs, roles %q, flights %q, the same answer: %v", runs, roles, flights, same)
	}
	if row.Follower != nil {
		if err := row.Follower(b.header); err != nil {
			t.Errorf("the follower's answer: %v", err)
		}
	}
}
