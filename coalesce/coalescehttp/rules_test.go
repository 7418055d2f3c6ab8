package coalescehttp

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
)

// parsed returns a request as a server gets it: target is "GET /path" or "/path", and
// lines are those of its header.
func parsed(target string, lines ...string) *http.Request {
	method, path, ok := strings.Cut(target, " ")
	if !ok {
		method, path = http.MethodGet, target
	}
	raw := method + " " + path + " HTTP/1.1\r\n"
	if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(strings.ToLower(line), "host:") }) {
		raw += "Host: shop.example\r\n"
	}
	for _, line := range lines {
		raw += line + "\r\n"
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw + "\r\n")))
	if err != nil {
		panic(err)
	}
	return r
}

// made returns a request as a program makes it.
func made(target string, lines ...string) *http.Request {
	method, target, ok := strings.Cut(target, " ")
	if !ok {
		method, target = http.MethodGet, method
	}
	r, err := http.NewRequest(method, target, nil)
	if err != nil {
		panic(err)
	}
	r.Header = header(lines...)
	return r
}

func with(r *http.Request, change func(*http.Request)) *http.Request {
	change(r)
	return r
}

// header keeps names as they are given.
func header(lines ...string) http.Header {
	h := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		h[name] = append(h[name], strings.TrimSpace(value))
	}
	return h
}

func rulesOf(opts ...Option) *rules { return &newSettings(opts).rules }

// user is an identity from a cookie.
var user = WithIdentity(func(r *http.Request) string {
	if c, err := r.Cookie("user"); err == nil {
		return c.Value
	}
	return ""
})

var requestRows = []struct {
	name string
	r    *http.Request
	opts []Option
	want Reason
}{
	{"GET", parsed("/"), nil, ""},
	{"HEAD", parsed("HEAD /"), nil, ""},
	{"no method, which is GET", with(made("http://h/"), func(r *http.Request) { r.Method = "" }), nil, ""},
	{"POST", parsed("POST /"), nil, ReasonMethod},
	{"DELETE", parsed("DELETE /"), nil, ReasonMethod},
	{"OPTIONS", parsed("OPTIONS *"), nil, ReasonMethod},
	{"CONNECT", parsed("CONNECT h:443"), nil, ReasonMethod},
	{"QUERY", parsed("QUERY /"), nil, ReasonMethod},
	{"get in lower case, which is another method", parsed("get /"), nil, ReasonMethod},
	{"a GET that says it is a POST", parsed("/", "X-HTTP-Method-Override: POST"), nil, ReasonMethodOverride},
	{"the same to applications", parsed("/", "x_http_method: DELETE"), nil, ReasonMethodOverride},

	{"a body", parsed("/", "Content-Length: 1"), nil, ReasonBody},
	{"an empty body", parsed("/", "Content-Length: 0"), nil, ""},
	{"a body in pieces", parsed("/", "Transfer-Encoding: chunked"), nil, ReasonBody},
	{"a body of unknown length", with(made("http://h/"), func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("x")) }), nil, ReasonBody},
	{"no body that a middleware has wrapped", with(parsed("/"), func(r *http.Request) { r.Body = http.MaxBytesReader(nil, r.Body, 9) }), nil, ""},
	{"http.NoBody", with(made("http://h/"), func(r *http.Request) { r.Body = http.NoBody }), nil, ""},

	{"another scheme", made("file:///etc/passwd"), nil, ReasonTarget},
	{"a scheme in upper case", with(made("http://h/"), func(r *http.Request) { r.URL.Scheme = "HTTPS" }), nil, ""},
	{"a target without a path", parsed("mailto:somebody"), nil, ReasonTarget},
	{"a path without a slash", with(made("http://h/"), func(r *http.Request) { r.URL.Path = "p" }), nil, ReasonTarget},
	{"no URL", &http.Request{}, nil, ReasonTarget},
	{"the absolute form", parsed("http://shop.example/"), nil, ""},

	{"an upgrade", parsed("/", "Connection: keep-alive, Upgrade", "Upgrade: websocket"), nil, ReasonUpgrade},
	{"half an upgrade", parsed("/", "Upgrade: h2c"), nil, ReasonUpgrade},
	{"the other half", parsed("/", "Connection: upgrade"), nil, ReasonUpgrade},
	{"another connection option", parsed("/", "Connection: close"), nil, ""},
	{"Expect", parsed("/", "Expect: 100-continue"), nil, ReasonExpect},
	{"Range", parsed("/", "Range: bytes=0-9"), nil, ReasonRange},
	{"Range by a program that does not heed case", made("http://h/", "range: bytes=0-9"), nil, ReasonRange},
	{"If-Range", parsed("/", `If-Range: "a"`), nil, ReasonRange},
	{"If-Match", parsed("/", `If-Match: "a"`), nil, ReasonPrecondition},
	{"If-Unmodified-Since", parsed("/", "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT"), nil, ReasonPrecondition},
	{"If-None-Match", parsed("/", `If-None-Match: "a"`), nil, ""},
	{"a field without a value", with(made("http://h/"), func(r *http.Request) { r.Header["Range"] = nil }), nil, ""},

	{"no-store", parsed("/", "Cache-Control: max-age=0, No-Store"), nil, ReasonOwnAnswer},
	{"no-cache", parsed("/", "Cache-Control: no-cache"), nil, ReasonOwnAnswer},
	{"no-cache in a second line", parsed("/", "Cache-Control: max-age=0", "Cache-Control: no-cache"), nil, ReasonOwnAnswer},
	{"Cache-Control that cannot be read", parsed("/", "Cache-Control: max-age=0 no-cache"), nil, ReasonOwnAnswer},
	{"max-age=0", parsed("/", "Cache-Control: max-age=0"), nil, ""},
	{"no-cache in a line that goes on", parsed("/", "Cache-Control: max-age=0,", " no-cache"), nil, ReasonOwnAnswer},
	{"no-cache by a name that is not in canonical form", made("http://h/", "cache-control: no-cache"), nil, ReasonOwnAnswer},
	{"Pragma", parsed("/", "Pragma: no-cache"), nil, ReasonOwnAnswer},
	{"Pragma of a program", made("http://h/", "Pragma: no-cache"), nil, ReasonOwnAnswer},
	{"Pragma beside Cache-Control, which is newer", parsed("/", "Pragma: no-cache", "Cache-Control: max-age=0"), nil, ""},

	{"Cookie", parsed("/", "Cookie: a=b"), nil, ReasonCookie},
	{"Cookie with an identity", parsed("/", "Cookie: user=ann"), []Option{user}, ""},
	{"Cookie without the identity in it", parsed("/", "Cookie: a=b"), []Option{user}, ReasonCookie},
	{"Cookie that is to be treated as Authorization", parsed("/", "Cookie: a=b"), []Option{WithCookies()}, ""},
	{"Cookie that is part of the key", parsed("/", "Cookie: a=b"), []Option{WithKeyFields("Cookie")}, ReasonCookie},
	{"Authorization", parsed("/", "Authorization: Bearer t"), nil, ""},
}

func TestARequestIsMergedOrAloneAsTheTableSays(t *testing.T) {
	told := map[Reason]bool{}
	for _, row := range requestRows {
		q, reason := rulesOf(row.opts...).request(row.r)
		if reason != row.want || (q == nil) != (reason != "") {
			t.Errorf("%s: %q, want %q", row.name, reason, row.want)
		}
		told[reason] = true
	}
	for _, reason := range Reasons()[:slices.Index(Reasons(), ReasonExcluded)] {
		if !told[reason] {
			t.Errorf("no row is alone because of %q", reason)
		}
	}
}

// The words are the values of metrics, and what people look up.
func TestTheTableHasEachReason(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[Reason]bool{}
	for _, reason := range Reasons() {
		if seen[reason] {
			t.Errorf("%q is there twice", reason)
		}
		seen[reason] = true
		if !strings.Contains(string(doc), "//\t"+string(reason)+" ") {
			t.Errorf("the table of the package comment has no row for %q", reason)
		}
	}
}

// certified returns a request over TLS, from a client with a certificate or without.
func certified(r *http.Request, certificates ...*x509.Certificate) *http.Request {
	r.TLS = &tls.ConnectionState{PeerCertificates: certificates}
	return r
}

func TestCredentialsAreFoundWhereverTheyStand(t *testing.T) {
	for name, r := range map[string]*http.Request{
		"Authorization":        parsed("/", "Authorization: Bearer t"),
		"an empty one":         parsed("/", "Authorization:"),
		"one in lower case":    made("http://h/", "authorization: Bearer t"),
		"Proxy-Authorization":  parsed("/", "Proxy-Authorization: Basic eA=="),
		"a client certificate": certified(parsed("/"), &x509.Certificate{}),
		"userinfo in the URL":  with(made("http://h/"), func(r *http.Request) { r.URL.User = url.User("ann") }),
		"a cookie":             parsed("/", "Cookie: a=b"),
	} {
		q, reason := rulesOf(WithCookies()).request(r)
		if reason != "" || !q.credentials {
			t.Errorf("%s: %q, %+v", name, reason, q)
		}
	}
	for name, r := range map[string]*http.Request{
		"nothing": parsed("/"),
		"TLS":     certified(parsed("/")),
	} {
		if q, reason := rulesOf(WithCookies()).request(r); reason != "" || q.credentials {
			t.Errorf("%s: %q, %+v", name, reason, q)
		}
	}
	// An identity stands for them.
	if q, reason := rulesOf(user).request(parsed("/", "Authorization: x", "Cookie: user=ann")); reason != "" || q.credentials {
		t.Errorf("with an identity: %q, %+v", reason, q)
	}
}

// A function that is asked twice may say two things, and a private answer would then be
// shared by a key without the identity.
func TestTheIdentityIsAskedOnce(t *testing.T) {
	asked := 0
	ru := rulesOf(WithIdentity(func(*http.Request) string { asked++; return "ann" }))
	q, _ := ru.request(parsed("/"))
	q.key(nil)
	q.key([]string{"Accept"})
	q.answer(200, header("Cache-Control: private"), false, 1)
	if asked != 1 {
		t.Errorf("it was asked %d times", asked)
	}
}
