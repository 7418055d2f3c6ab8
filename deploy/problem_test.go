package deploy_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/deploy"
	"github.com/fleetcall/fleetcall/internal/httpheader"
)

func TestNginxsOwnErrorsAreProblemsLikeTheReplicas(t *testing.T) {
	hang := make(chan struct{})
	replica := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/hangs":
			<-hang
		case "/gone":
			panic(http.ErrAbortHandler)
		case "/theirs":
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte("the replica's own"))
		}
	}))
	t.Cleanup(replica.Close)
	t.Cleanup(func() { close(hang) })
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	conf := bytes.Replace(deploy.NginxConf, []byte("proxy_read_timeout 300s"), []byte("proxy_read_timeout 1s"), 1)
	nginx := strings.TrimPrefix(startNginx(t, conf, strings.TrimPrefix(replica.URL, "http://")), "http://")
	const head = "\r\nHost: x\r\nX-Request-Id: mine\r\n"
	for name, c := range map[string]struct {
		request string
		status  int
		id      string // empty: a new one, because nginx has not read the client's
	}{
		"a body that is too large":    {"POST /burst HTTP/1.1" + head + "Content-Length: 65537\r\n\r\n", 413, "mine"},
		"the same in chunks":          {"POST /burst HTTP/1.1" + head + "Transfer-Encoding: chunked\r\n\r\n10001\r\n" + strings.Repeat("x", 65537), 413, "mine"},
		"no answer":                   {"GET /gone HTTP/1.1" + head + "\r\n", 502, "mine"},
		"no answer in time":           {"GET /hangs HTTP/1.1" + head + "\r\n", 504, "mine"},
		"metrics":                     {"GET /metrics HTTP/1.1" + head + "\r\n", 404, "mine"},
		"the address of the problems": {"GET /nginx-problem HTTP/1.1" + head + "\r\n", 404, "mine"},
		"no such method":              {"TRACE / HTTP/1.1" + head + "\r\n", 405, "mine"},
		"no HTTP":                     {"garbage\r\n\r\n", 400, ""},
		"a path that is none":         {"GET /%zz HTTP/1.1" + head + "\r\n", 400, ""},
		"no host":                     {"GET / HTTP/1.1\r\nX-Request-Id: mine\r\n\r\n", 400, "mine"},
		"a header that is too large":  {"GET / HTTP/1.1" + head + "X-Large: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", 400, "mine"},
		"a path that is too long":     {"GET /" + strings.Repeat("x", 64<<10) + " HTTP/1.1" + head + "\r\n", 414, ""},
		"an encoding nobody knows":    {"POST / HTTP/1.1" + head + "Transfer-Encoding: gzip\r\n\r\n", 501, "mine"},
		"a later HTTP":                {"GET / HTTP/9.1" + head + "\r\n", 505, ""},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := exchange(t, nginx, c.request)
			expectProblem(t, resp, body, c.status, c.id)
		})
	}
	if resp, body := exchange(t, nginx, "GET /theirs HTTP/1.1"+head+"\r\n"); resp.StatusCode != 404 || string(body) != "the replica's own" {
		t.Errorf("a replica's error becomes %d: %s", resp.StatusCode, body)
	}
}

// expectProblem fails the test unless nginx has sent a problem with the headers of a
// replica's response. An empty id stands for a new one.
func expectProblem(t *testing.T, resp *http.Response, body []byte, status int, id string) {
	t.Helper()
	want := httpheader.Common()
	want.Set("Content-Type", "application/problem+json")
	for name := range want {
		if got := resp.Header.Values(name); !slices.Equal(got, want.Values(name)) {
			t.Errorf("%s is %q, want %q", name, got, want.Values(name))
		}
	}
	if got := resp.Header.Get("X-Request-Id"); id != "" && got != id || id == "" && len(got) != 32 {
		t.Errorf("X-Request-Id is %q", got)
	}
	var p api.Problem
	if err := json.Unmarshal(body, &p); err != nil || resp.StatusCode != status || p.Status != status ||
		p.Type != "about:blank" || p.Title != http.StatusText(status) || p.Detail == "" {
		t.Errorf("status %d, want %d: %s", resp.StatusCode, status, body)
	}
}

// exchange sends the request unchanged and reads the response.
func exchange(t *testing.T, addr, request string) (*http.Response, []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// The request is written in the background, because nginx may respond before it has
	// read all of it.
	go func() { _, _ = conn.Write([]byte(request)) }()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp, body.Bytes()
}
