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

// expectSecurityHeaders fails the test unless a browser may run, frame, sniff
// and keep nothing of an answer.
func expectSecurityHeaders(t *testing.T, a answer) {
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
	// The page alone has scripts, and they are files of this server.
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "script-src") && policy != pagePolicy {
		t.Errorf("status %d: policy %q lets scripts run", a.status, policy)
	}
}

const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// expectStylePolicy fails the test unless the page's own style is allowed.
func expectStylePolicy(t *testing.T, a answer) {
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
		if got := decode[api.ProductAnswer](t, a); got.Product.Name != hostile || strings.ContainsAny(a.body, "<>&") {
			t.Errorf("%s", a.body)
		}
	}
}

// pipes is a listener whose connections live in this process, so that time may
// be the bubble's.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// inBubble runs a test with a server whose clock stands still while everybody
// waits.
func inBubble(t *testing.T, test func(t *testing.T, client net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		server, err := api.New(api.Config{
			Group: coalesce.Off[product.Product]{}, Store: &store{}, Mode: "off", Replica: "r", WriteTimeout: time.Minute,
		})
		if err != nil {
			t.Fatal(err)
		}
		l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
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

// sendPart writes a part of a request. The server may stop reading it.
func sendPart(client net.Conn, part string) {
	go func() { _, _ = io.WriteString(client, part) }()
}

// expectEnd fails the test unless the server ends the connection when limit
// has passed, and not before.
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
	inBubble(t, func(t *testing.T, client net.Conn) {
		sendPart(client, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
		expectEnd(t, client, 10*time.Second)
	})
}

func TestABodyThatNeverComesIsCutOff(t *testing.T) {
	inBubble(t, func(t *testing.T, client net.Conn) {
		sendPart(client, "POST /stats/reset HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
		expectEnd(t, client, 30*time.Second)
	})
}

func TestAConnectionWithoutRequestsIsClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, client net.Conn) {
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
	inBubble(t, func(t *testing.T, client net.Conn) {
		_, err := io.WriteString(client, "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // of the bubble's
		n, err := io.Copy(io.Discard, client)
		if err != nil || n > 4096 {
			t.Errorf("%d bytes of the answer still come after an hour, %v", n, err)
		}
	})
}

func TestALargeHeaderIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, client net.Conn) {
		sendPart(client, "GET /livez HTTP/1.1\r\nHost: x\r\nX-Large: "+strings.Repeat("x", 80<<10)+"\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(client), nil)
		if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%v, %v", resp, err)
		}
	})
}

func TestABodyWithoutALengthIsNotReadToItsEnd(t *testing.T) {
	_, url, stop := serving(t)
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

// serving serves on a port of its own until stop.
func serving(t *testing.T) (server *api.Server, url string, stop func()) {
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
