package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/product"
)

// expectSecurityHeaders fails the test unless the headers forbid a browser to run,
// frame, guess the type of, or keep the response.
func expectSecurityHeaders(t *testing.T, a response) {
	t.Helper()
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
		"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := a.header.Get(name); got != want {
			t.Errorf("status %d: %s %q, want %q", a.status, name, got, want)
		}
	}
	policy := a.header.Get("Content-Security-Policy")
	for _, rule := range []string{"default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, rule) {
			t.Errorf("status %d: policy %q lacks %s", a.status, policy, rule)
		}
	}
	// Only the page has scripts, and they are files of this server.
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "script-src") && policy != pagePolicy {
		t.Errorf("status %d: policy %q lets scripts run", a.status, policy)
	}
}

const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// expectStylePolicy fails the test unless the page's own style is allowed.
func expectStylePolicy(t *testing.T, a response) {
	t.Helper()
	_, style, _ := strings.Cut(a.body, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	if policy := a.header.Get("Content-Security-Policy"); !strings.Contains(policy, "'"+sha256Source(style)+"'") {
		t.Errorf("policy %q does not allow the page's style", policy)
	}
}

func TestAHostileProductCannotBecomeMarkup(t *testing.T) {
	const hostile = `</script><script>alert(1)</script>"'&`
	s := &store{query: func(context.Context, int32) (product.Product, error) {
		return product.Product{ID: 1, Name: hostile, Description: hostile}, nil
	}}
	f := start(t, s, nil)
	for _, kind := range []string{"normal", "coalesced"} {
		a := f.get(t, "/product/"+kind+"/1")
		if got := decode[api.ProductResponse](t, a); got.Product.Name != hostile || strings.ContainsAny(a.body, "<>&") {
			t.Errorf("%s", a.body)
		}
	}
}

// pipeListener is a listener for connections within the process, as a test with a
// bubble's clock needs them.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipeListener) Close() error {
	close(p.closed)
	return nil
}

func (p *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// withSilentClient runs a test in a bubble, with a server and a connection to it on
// which the test sends what it likes.
func withSilentClient(t *testing.T, test func(t *testing.T, client net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		server, err := api.New(api.Config{
			Group: coalesce.Off[product.Product]{}, Store: &store{}, Mode: "off", Replica: "r", WriteTimeout: time.Minute,
		})
		if err != nil {
			t.Fatal(err)
		}
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		client, conn := net.Pipe()
		l.conns <- conn
		test(t, client)
		_ = client.Close()
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// sendPart writes a part of a request without waiting, because the server may stop
// reading.
func sendPart(client net.Conn, part string) {
	go func() { _, _ = io.WriteString(client, part) }()
}

// expectEnd fails the test unless the server closes the connection after limit, and not
// earlier.
func expectEnd(t *testing.T, client net.Conn, limit time.Duration) {
	t.Helper()
	begin := time.Now()
	_ = client.SetReadDeadline(begin.Add(24 * time.Hour))
	_, err := io.Copy(io.Discard, client)
	if took := time.Since(begin); err != nil || took < limit || took > limit+time.Second {
		t.Errorf("ended after %v with %v, want %v", took, err, limit)
	}
}

func TestAHeaderThatNeverEndsIsCutOff(t *testing.T) {
	withSilentClient(t, func(t *testing.T, client net.Conn) {
		sendPart(client, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
		expectEnd(t, client, 10*time.Second)
	})
}

func TestABodyThatNeverComesIsCutOff(t *testing.T) {
	withSilentClient(t, func(t *testing.T, client net.Conn) {
		sendPart(client, "POST /stats/reset HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
		expectEnd(t, client, 30*time.Second)
	})
}

func TestAConnectionWithoutRequestsIsClosed(t *testing.T) {
	withSilentClient(t, func(t *testing.T, client net.Conn) {
		sendPart(client, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(client), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp.StatusCode, err)
		}
		expectEnd(t, client, 2*time.Minute)
	})
}

func TestAClientThatDoesNotReadIsCutOff(t *testing.T) {
	withSilentClient(t, func(t *testing.T, client net.Conn) {
		_, err := io.WriteString(client, "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // of the bubble's clock
		n, err := io.Copy(io.Discard, client)
		if err != nil || n > 4096 {
			t.Errorf("%d bytes of the answer still come after an hour, %v", n, err)
		}
	})
}

func TestALargeHeaderIsRefused(t *testing.T) {
	withSilentClient(t, func(t *testing.T, client net.Conn) {
		sendPart(client, "GET /livez HTTP/1.1\r\nHost: x\r\nX-Large: "+strings.Repeat("x", 80<<10)+"\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(client), nil)
		if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%v, %v", resp, err)
		}
	})
}

func TestABodyWithoutALengthIsNotReadToItsEnd(t *testing.T) {
	_, url, stop := startServing(t)
	defer stop()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "POST /stats/reset HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	sent := 0
	chunk := fmt.Sprintf("%x\r\n%s\r\n", 32<<10, strings.Repeat("x", 32<<10))
	for ; err == nil && sent < 64<<20; sent += 32 << 10 {
		_, err = io.WriteString(conn, chunk)
	}
	if err == nil {
		t.Errorf("the server took a body of %d bytes", sent)
	}
}

// startServing serves on a port of its own until stop is called.
func startServing(t *testing.T) (server *api.Server, url string, stop func()) {
	t.Helper()
	server, url, served := listen(t, &store{})
	return server, url, func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

func TestResetWantsTheAdminToken(t *testing.T) {
	f := start(t, &store{}, func(c *api.Config) { c.AdminToken = "letmein" })
	f.get(t, "/product/coalesced/1")
	for _, header := range []string{"", "letmein", "Bearer", "Bearer ", "Bearer wrong", "Basic letmein", "Bearer letmein2"} {
		a := f.send(t, http.MethodPost, "/stats/reset", http.Header{"Authorization": {header}})
		expectProblem(t, a, http.StatusUnauthorized)
		if !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%q: WWW-Authenticate %q", header, a.header.Get("WWW-Authenticate"))
		}
	}
	if f.Stats().Misses != 1 {
		t.Error("reset without a token")
	}
	a := f.send(t, http.MethodPost, "/stats/reset", http.Header{"Authorization": {"bearer letmein"}})
	if a.status != http.StatusOK || decode[api.ResetResponse](t, a).Message == "" || f.Stats().Misses != 0 {
		t.Errorf("status %d: %s", a.status, a.body)
	}
	if a := f.get(t, "/stats"); a.status != http.StatusOK {
		t.Errorf("reading wants no token: %d", a.status)
	}
}

func TestResetIsRefusedToAnotherSitesPage(t *testing.T) {
	f := start(t, &store{}, nil)
	expectProblem(t, f.send(t, http.MethodPost, "/stats/reset", http.Header{"Sec-Fetch-Site": {"cross-site"}}), http.StatusForbidden)
	if a := f.send(t, http.MethodPost, "/stats/reset", http.Header{"Sec-Fetch-Site": {"same-origin"}}); a.status != http.StatusOK {
		t.Errorf("status %d", a.status)
	}
}
