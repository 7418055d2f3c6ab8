package httpmatrix

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
)

const (
	pages        = 20
	pageRequests = 1000
)

var users = [2]string{"alice", "robert"}

// privatePages has two users ask for twenty private pages, 1,000 times at once. The first
// answer for a page says by its header that it is private. From then on, every request is
// inside the server, though none has been answered: none waits for another.
func privatePages(t *testing.T, front Front) {
	var inside atomic.Int64
	release := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := r.Header.Get("X-Visitor")
		w.Header().Set("Cache-Control", "private")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		inside.Add(1)
		select {
		case <-release:
		case <-r.Context().Done():
		}
		fmt.Fprint(w, page(who, r.URL.Path))
	})
	replicas := front.Start(t, handler, 2, Settings{})
	client := newClient(t)
	type asked struct {
		user, path string
		answer     <-chan got
	}
	all := make([]asked, pageRequests)
	for i := range all {
		a := asked{user: users[i%2], path: fmt.Sprintf("/page/%d", i/2%pages)}
		q := Request{Target: a.path, Fields: []string{"X-Visitor", a.user}}.like(Request{})
		a.answer = send(t.Context(), client, replicas.URLs[i/2/pages%2], q)
		all[i] = a
	}
	eventually(t, "all requests are inside the server at once", func() bool { return inside.Load() == pageRequests })
	close(release)
	for _, a := range all {
		g := <-a.answer
		if g.err != nil || g.body != page(a.user, a.path) || g.header.Get(coalescehttp.RoleHeader) != "alone" {
			t.Fatalf("%s asked for %s, and got %d %.80q, %v", a.user, a.path, g.status, g.body, g.err)
		}
	}
}

// page is private: each of its lines has the user's name.
func page(user, path string) string {
	return strings.Repeat(fmt.Sprintf("%s's %s\n", user, path), 100)
}
