package coalescehttp_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
)

// careless answers with all that it was asked, as applications do that make links and
// redirects of it, and refuses what it does not like. It says nothing of what its answers
// depend on, but for one field.
func careless(g *gate) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.pass(r.Context()) != nil {
			return
		}
		w.Header().Set("Vary", "X-Named")
		if r.Header.Get("Authorization") != "" {
			w.Header().Set("Cache-Control", "public")
		}
		switch {
		case len(r.Header.Get("X-Large")) > 1000:
			w.WriteHeader(http.StatusRequestHeaderFieldsTooLarge)
		case strings.Contains(r.UserAgent(), "scanner"):
			w.WriteHeader(http.StatusForbidden)
		case r.Header.Get("Accept") == "evil/evil":
			w.WriteHeader(http.StatusNotAcceptable)
		case r.Header.Get("Range") != "":
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = io.WriteString(w, r.Method+" "+r.RequestURI+" "+r.URL.String()+" "+r.Host+"\n")
		_ = r.Header.Write(w)
		_, _ = io.Copy(w, r.Body)
	})
}

// attacks are requests that somebody makes for others to get their answers, at the time at
// which these ask for /page of shop.example.
var attacks = []struct {
	name, request string
	succeeds      bool
}{
	{name: "another host", request: "GET /page HTTP/1.1\r\nHost: evil.example\r\n\r\n"},
	{name: "another port", request: "GET /page HTTP/1.1\r\nHost: shop.example:666\r\nX-Large: evil\r\n\r\n"},
	{name: "a host with a dot", request: "GET /page HTTP/1.1\r\nHost: shop.example.\r\nX-Large: evil\r\n\r\n"},
	{name: "the absolute form", request: "GET http://evil.example/page HTTP/1.1\r\nHost: shop.example\r\n\r\n"},
	{name: "the absolute form of the right host", request: "GET http://shop.example/page HTTP/1.1\r\nHost: evil.example\r\nX-Large: evil\r\n\r\n"},
	{name: "X-Forwarded-Host", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-Host: evil.example\r\n\r\n"},
	{name: "X_Forwarded_Host", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nX_Forwarded_Host: evil.example\r\n\r\n"},
	{name: "Forwarded", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nForwarded: for=\"x;host=evil.example\r\n\r\n"},
	{name: "X-Original-URL", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nX-Original-URL: /evil\r\n\r\n"},
	{name: "X-HTTP-Method-Override", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nX-HTTP-Method-Override: evil\r\n\r\n"},
	{name: "Origin", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nOrigin: https://evil.example\r\n\r\n"},
	{name: "a field that goes on in the next line", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-Prefix:\r\n /evil\r\n\r\n"},
	{name: "a query", request: "GET /page?evil HTTP/1.1\r\nHost: shop.example\r\n\r\n"},
	{name: "an empty query", request: "GET /page? HTTP/1.1\r\nHost: shop.example\r\nX-Large: evil\r\n\r\n"},
	{name: "a fragment", request: "GET /page#evil HTTP/1.1\r\nHost: shop.example\r\n\r\n"},
	{name: "an escaped letter", request: "GET /p%61ge HTTP/1.1\r\nHost: shop.example\r\nX-Large: evil\r\n\r\n"},
	{name: "dots", request: "GET /evil/../page HTTP/1.1\r\nHost: shop.example\r\n\r\n"},
	{name: "a body", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 4\r\n\r\nevil"},
	{name: "a body in pieces", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"},
	{name: "HEAD", request: "HEAD /page HTTP/1.1\r\nHost: shop.example\r\nX-Large: evil\r\n\r\n"},
	{name: "a part", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nRange: bytes=0-0\r\nX-Large: evil\r\n\r\n"},
	{name: "a condition", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nIf-None-Match: \"evil\"\r\n\r\n"},
	{name: "an upgrade", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: evil\r\n\r\n"},
	{name: "another user's public page", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nAuthorization: evil\r\n\r\n"},
	{name: "a cookie", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nCookie: session=evil\r\n\r\n"},
	{name: "fields that are too large", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nX-Large: evil" + strings.Repeat("x", 1000) + "\r\n\r\n"},
	{name: "a scanner, which is forbidden", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: evil scanner\r\n\r\n"},
	{name: "what no server has", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nAccept: evil/evil\r\n\r\n"},
	{name: "a field in Vary", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nX-Named: evil\r\n\r\n"},
	// What no rule can know. It shows that the test sees what succeeds.
	{name: "a field that nobody names", request: "GET /page HTTP/1.1\r\nHost: shop.example\r\nX-Unnamed: evil\r\n\r\n", succeeds: true},
}

func TestNobodyMakesTheAnswersOfOthers(t *testing.T) {
	for _, attack := range attacks {
		t.Run(attack.name, func(t *testing.T) {
			f, g := newFleet(1), newGate()
			url := serve(t, coalescehttp.Middleware(f.groups[0])(careless(g)))
			t.Cleanup(g.open)
			conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, attack.request); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the attacker leads", func() bool { return g.entered.Load() == 1 })
			victim := get(context.Background(), newClient(t), url+"/page", "Host", "shop.example")
			eventually(t, "another has come", func() bool { return f.waiting() == 2 || g.entered.Load() == 2 })
			g.open()
			got := <-victim
			if got.err != nil {
				t.Fatal(got.err)
			}
			poisoned := got.status != http.StatusOK || strings.Contains(got.body, "evil") || !strings.HasPrefix(got.body, "GET /page /page shop.example\n")
			if poisoned != attack.succeeds {
				t.Errorf("%d, as %s: %s", got.status, got.role(), got.body)
			}
		})
	}
}
