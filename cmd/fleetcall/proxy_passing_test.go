package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fleetcall/fleetcall/api"
)

// seen is what an upstream got.
type seen struct {
	Method, Target, Host string
	Header               http.Header
}

// echoing is an upstream that answers with what it got.
func echoing(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "X-Hop")
	w.Header().Set("X-Hop", "1")
	_ = json.NewEncoder(w).Encode(seen{r.Method, r.RequestURI, r.Host, r.Header})
}

// exchange sends a request with fields, given as names and values by turns.
func (p proxying) exchange(t *testing.T, target string, fields ...string) (seen, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, p.url+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "shop.example"
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	resp, err := p.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var got seen
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	return got, resp.Header
}

func TestAProxySendsOnWhatTheClientSentAndSaysForWhom(t *testing.T) {
	p := startProxy(t, origin(t, echoing))
	for _, target := range []string{"/a/b", "/a%2Fb", "//a//b/", "/a/../b", "/%7Ea", "/a?", "/a?x=1;y=2&%zz", "/a?b=2&a=1"} {
		if got, _ := p.exchange(t, target); got.Target != target {
			t.Errorf("%s became %s", target, got.Target)
		}
	}
	got, header := p.exchange(t, "/", "X-Request-Id", "mine", "X-Forwarded-For", "10.0.0.1", "X-Forwarded-Proto", "https", "Via", "1.1 nginx", "Connection", "X-Mine", "X-Mine", "1")
	for name, want := range map[string]string{
		"X-Request-Id": "mine", "X-Forwarded-For": "10.0.0.1, 127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example",
		"Via": "1.1 nginx, 1.1 fleetcall", "X-Mine": "", "Connection": "",
	} {
		if got.Header.Get(name) != want {
			t.Errorf("the upstream got %s: %q, want %q", name, got.Header.Get(name), want)
		}
	}
	for name, want := range map[string]string{
		"X-Request-Id": "mine", "Via": "1.1 fleetcall", "X-Replica": p.replica.id, "X-Hop": "", "X-Coalesce-Role": "leader",
	} {
		if header.Get(name) != want {
			t.Errorf("the client got %s: %q, want %q", name, header.Get(name), want)
		}
	}
	if got, header := p.exchange(t, "/", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "AAMAAABkAAQAAP__"); got.Header.Get("Upgrade") != "" || got.Header.Get("HTTP2-Settings") != "" || header.Get("X-Coalesce-Role") != "leader" {
		t.Errorf("a change to HTTP/2 is passed on: %v", got.Header)
	}
	if got.Host != "shop.example" {
		t.Errorf("the upstream is asked for %s", got.Host)
	}

	strict := startProxy(t, origin(t, echoing)+"/base", "--trusted-proxies=10.0.0.0/8", "--upstream-host=inside.example")
	got, _ = strict.exchange(t, "/a%2Fb?x", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "evil.example", "Forwarded", "for=6.6.6.6")
	if got.Header.Get("X-Forwarded-For") != "127.0.0.1" || got.Header.Get("X-Forwarded-Proto") != "http" || got.Header.Get("X-Forwarded-Host") != "shop.example" || got.Header.Get("Forwarded") != "" {
		t.Errorf("a client that is not trusted is believed: %v", got.Header)
	}
	if got.Host != "inside.example" || got.Target != "/base/a%2Fb?x" {
		t.Errorf("the upstream is asked for %s of %s", got.Target, got.Host)
	}
}

// Whoever shares an answer still has an id of its own, by which its log lines are found.
func TestClientsThatShareAnAnswerKeepTheirOwnIDs(t *testing.T) {
	release := make(chan struct{})
	p := startProxy(t, origin(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
		echoing(w, r)
	}))
	var clients sync.WaitGroup
	for i := range 5 {
		clients.Go(func() {
			id := fmt.Sprintf("id-%d", i)
			if _, header := p.exchange(t, "/a", "X-Request-Id", id); strings.Join(header.Values("X-Request-Id"), ",") != id {
				t.Errorf("%s got %q", id, header.Values("X-Request-Id"))
			}
		})
	}
	eventually(t, "merged", func() bool { return get[api.Stats](t, p.admin, "/stats").Tiers.Local.Requests == 5 })
	close(release)
	clients.Wait()
	eventually(t, "counted", func() bool { return get[api.Stats](t, p.admin, "/stats").ActiveCalls == 0 })
	if st := get[api.Stats](t, p.admin, "/stats"); st.Hits != 4 || st.Misses != 1 || st.TotalRequests != 5 || st.Upstream.Requests != 1 || st.Upstream.Alone != 0 {
		t.Errorf("%+v, %+v", st, st.Upstream)
	}
}

// upgrade asks for another protocol, of which the upstream sends back what it gets.
func upgrade(t *testing.T, p proxying) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_, _ = io.WriteString(conn, "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("X-Coalesce-Role") != "alone" {
		t.Fatalf("%+v, %v", resp, err)
	}
	return conn, reader
}

func upgrading(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "echo" {
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	_, _ = io.Copy(conn, buffered)
}

func TestConnectionsOfAnotherProtocolPassAndEndWithTheProxy(t *testing.T) {
	p := startProxy(t, origin(t, upgrading))
	conn, reader := upgrade(t, p)
	for _, word := range []string{"one\n", "two\n"} {
		_, _ = io.WriteString(conn, word)
		if got, err := reader.ReadString('\n'); err != nil || got != word {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if err := p.stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	if _, err := reader.ReadByte(); err == nil {
		t.Error("the connection is still open")
	}
}

func TestUploadsAndStreamsPassWhileTheyGoOn(t *testing.T) {
	p := startProxy(t, origin(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		lines := bufio.NewReader(r.Body)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(w, strings.ToUpper(line))
			_ = control.Flush()
		}
	}))
	body, up := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.WriteString(up, "one\n") }()
	resp, err := p.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer := bufio.NewReader(resp.Body)
	for _, next := range []string{"two\n", "three\n"} {
		if _, err := answer.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(up, next)
	}
	if last, err := answer.ReadString('\n'); err != nil || last != "THREE\n" {
		t.Errorf("%q, %v", last, err)
	}
	_ = up.Close()
	if rest, err := io.ReadAll(answer); err != nil || len(rest) != 0 {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestALargeUploadArrivesWhole(t *testing.T) {
	p := startProxy(t, origin(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n, err)
	}))
	for _, expect := range []string{"", "100-continue"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, p.url+"/", bytes.NewReader(make([]byte, 64<<20)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Expect", expect)
		resp, err := p.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if string(body) != "67108864 <nil>" || resp.Header.Get("X-Coalesce-Role") != "alone" {
			t.Errorf("%q, %v", body, resp.Header)
		}
	}
	if st := get[api.Stats](t, p.admin, "/stats"); st.Upstream.AloneBy["method"] != 2 {
		t.Errorf("%+v", st.Upstream)
	}
}

// client2 speaks HTTP/2 alone.
func client2(t *testing.T, secure *tls.Config) *http.Client {
	t.Helper()
	protocols := &http.Protocols{}
	protocols.SetUnencryptedHTTP2(secure == nil)
	protocols.SetHTTP2(secure != nil)
	transport := &http.Transport{Protocols: protocols, TLSClientConfig: secure}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestClientsSpeakHTTP2WithTLSOrWithout(t *testing.T) {
	release := make(chan struct{})
	upstream := origin(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		echoing(w, r)
	})
	certificate := httptest.NewUnstartedServer(http.NotFoundHandler())
	certificate.StartTLS()
	t.Cleanup(certificate.Close)
	plain := startProxy(t, upstream)
	cert, key := writePair(t, certificate.TLS.Certificates[0])
	secure := startProxy(t, upstream, "--tls-cert="+cert, "--tls-key="+key)
	secure.url = strings.Replace(secure.url, "http:", "https:", 1)
	trusting := certificate.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	trusting.ServerName = "example.com"

	for _, c := range []struct {
		proxy  proxying
		client *http.Client
		proto  string
	}{{plain, client2(t, nil), "http"}, {secure, client2(t, trusting), "https"}} {
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				resp, err := c.client.Get(c.proxy.url + "/a")
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = resp.Body.Close() }()
				var got seen
				err = json.NewDecoder(resp.Body).Decode(&got)
				if err != nil || resp.ProtoMajor != 2 || got.Header.Get("X-Forwarded-Proto") != c.proto || got.Header.Get("Via") != "2 fleetcall" {
					t.Errorf("%s: %+v, %v", resp.Proto, got, err)
				}
			})
		}
		eventually(t, "merged", func() bool { return get[api.Stats](t, c.proxy.admin, "/stats").Tiers.Local.Requests == 20 })
		release <- struct{}{} // of one answer alone
		all.Wait()
	}
}

// writePair writes a certificate and its key into files.
func writePair(t *testing.T, pair tls.Certificate) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	private, err := pemOfKey(pair)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(cert, pemOfCertificate(pair), 0o600), os.WriteFile(key, private, 0o600)); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func TestAProxyThatStopsFinishesWhatItHasAndTakesNoMore(t *testing.T) {
	release := make(chan struct{})
	p := startProxy(t, origin(t, func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_, _ = io.WriteString(w, "the answer")
	}), "--shutdown-grace=1h")
	var clients sync.WaitGroup
	for _, client := range []*http.Client{p.client, client2(t, nil)} {
		clients.Go(func() {
			resp, err := client.Get(p.url + "/a")
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = resp.Body.Close() }()
			if body, err := io.ReadAll(resp.Body); string(body) != "the answer" {
				t.Errorf("%q, %v", body, err)
			}
		})
	}
	eventually(t, "under way", func() bool { return get[api.Stats](t, p.admin, "/stats").Tiers.Local.Requests == 2 })
	p.cancel()
	eventually(t, "not ready", func() bool {
		status, _, body := p.admin.send(t, http.MethodGet, "/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(string(body), "stopping")
	})
	eventually(t, "closed to others", func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	close(release)
	clients.Wait()
	if err := p.stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
}

func TestATunnelIsRefused(t *testing.T) {
	p := startProxy(t, origin(t, echoing))
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "CONNECT inside.example:22 HTTP/1.1\r\nHost: inside.example:22\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("%+v, %v", resp, err)
	}
	_ = resp.Body.Close()
}
