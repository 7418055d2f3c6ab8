package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// slow is how long the upstream takes for a slow page.
const slow = 500 * time.Millisecond

// measureHTTP fills the report's section on the proxy: what it costs where nobody shares,
// how soon those who share have their answer, and what a crowd waits.
func measureHTTP(b *bench) {
	s := b.section("http", "HTTP")
	h := &rig.Host{}
	defer h.Close()
	origin := startOrigin(h)
	redis := redisrig.Start(h)
	ours := startProxies(h, b.binary, origin.url, redis.URL(), 3)
	rivals := rivals{
		ours: ours, balanced: startNginx(h, "upstream proxies { zone proxies 256k; "+servers(ours)+" keepalive 1024; }", "proxy_pass http://proxies;"),
		locked: startNginx(h, "proxy_cache_path cache keys_zone=pages:10m;", lockedLocation(origin)),
		nginx:  startNginx(h, "upstream origin { server "+address(origin.url)+"; keepalive 1024; }", "proxy_pass http://origin;"),
	}
	for range ours {
		rivals.bare = append(rivals.bare, startBareProxy(h, origin.url))
	}
	measureFollowers(b, s, origin, rivals)
	measureLoneRequest(b, s, origin, rivals, redis.Addr)
	measureCrowd(b, s, origin, rivals)
}

// rivals are the base URLs of what may stand before the upstream.
type rivals struct {
	ours     []string // three fleetcall proxies of one fleet
	balanced string   // nginx before those
	locked   string   // nginx with proxy_cache_lock
	nginx    string   // nginx, which only hands on
	bare     []string // httputil.ReverseProxy, with nothing else
}

// lockedLocation has nginx merge the requests for a page as it can: the first one fills its
// cache, and the others look there again every 500 ms.
func lockedLocation(o *origin) string {
	return "proxy_pass " + o.url + "; proxy_cache pages; proxy_cache_key $request_uri; proxy_cache_valid 200 10s; " +
		"proxy_cache_lock on; proxy_cache_lock_timeout 1m; proxy_cache_lock_age 1m;"
}

// origin is the upstream: a service with pages of a quarter of a KiB.
type origin struct {
	url      string
	requests atomic.Int64 // for its pages

	mu   sync.Mutex
	held map[string]*heldPage // by path
}

// heldPage is answered when it is released.
type heldPage struct{ asked, release chan struct{} }

func startOrigin(h *rig.Host) *origin {
	listener := value(net.Listen("tcp", "127.0.0.1:0"))
	o := &origin{url: "http://" + listener.Addr().String(), held: map[string]*heldPage{}}
	page := []byte(`{"page":"` + strings.Repeat("x", 245) + `"}`)
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		held := o.held[r.URL.Path]
		o.mu.Unlock()
		if r.URL.Path != "/livez" {
			o.requests.Add(1)
		}
		switch {
		case held != nil:
			held.asked <- struct{}{}
			<-held.release
		case strings.HasPrefix(r.URL.Path, "/slow/"):
			time.Sleep(slow) // it is what such a page takes
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(page)
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	h.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return o
}

// hold makes the page of a path wait for its release.
func (o *origin) hold(path string) *heldPage {
	page := &heldPage{asked: make(chan struct{}, 1000), release: make(chan struct{})}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held[path] = page
	return page
}

// during returns how many requests for its pages the upstream gets meanwhile.
func (o *origin) during(do func()) int {
	before := o.requests.Load()
	do()
	return int(o.requests.Load() - before)
}

// host is whom all clients ask, by whatever address.
const host = "shop.example"

// fetch gets a page, whole.
func fetch(client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(background(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Host = host
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d", url, resp.StatusCode)
	}
	return nil
}

func address(url string) string { return strings.TrimPrefix(url, "http://") }

func servers(urls []string) string {
	var b strings.Builder
	for _, url := range urls {
		fmt.Fprintf(&b, "server %s; ", address(url))
	}
	return b.String()
}
