package coalescehttp

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func keyOf(t testing.TB, r *http.Request, vary []string, opts ...Option) string {
	t.Helper()
	q, reason := rulesOf(opts...).request(r)
	if reason != "" {
		t.Fatalf("%s %s is not merged: %s", r.Method, r.URL, reason)
	}
	key := q.key(vary)
	if len(key) > 200 || !strings.HasPrefix(key, "GET http") && !strings.HasPrefix(key, "HEAD http") {
		t.Errorf("the key of %s is %q", r.URL, key)
	}
	return key
}

// pair are two requests, and what rules they are looked at by.
type pair struct {
	name string
	a, b *http.Request
	opts []Option
	vary []string
}

var sameKey = []pair{
	{name: "the same", a: parsed("/a?b=c"), b: parsed("/a?b=c")},
	{name: "a host in upper case", a: parsed("/", "Host: shop.example"), b: parsed("/", "Host: SHOP.Example")},
	{name: "the default port", a: parsed("/", "Host: h"), b: parsed("/", "Host: h:80")},
	{name: "an empty port", a: parsed("/", "Host: h"), b: parsed("/", "Host: h:")},
	{name: "the default port of TLS", a: certified(parsed("/", "Host: h")), b: certified(parsed("/", "Host: h:443"))},
	{name: "an IPv6 address", a: made("http://[::1]/"), b: made("http://[::1]:80/")},
	{name: "no path", a: made("http://h"), b: made("http://h/")},
	{name: "no method", a: made("http://h/"), b: with(made("http://h/"), func(r *http.Request) { r.Method = "" })},
	{name: "a scheme in upper case", a: made("http://h/"), b: with(made("http://h/"), func(r *http.Request) { r.URL.Scheme = "HTTP" })},
	{name: "a fragment, which is not sent", a: made("http://h/#a"), b: made("http://h/#b")},
	{name: "another client's address", a: parsed("/", "X-Forwarded-For: 10.0.0.1"), b: parsed("/", "X-Forwarded-For: 10.0.0.2")},
	{name: "Forwarded for another client", a: parsed("/", `Forwarded: for=10.0.0.1;host=h, for="[::1]:4711"`), b: parsed("/", `Forwarded: For=10.0.0.2;host=h, for=unknown`)},
	{name: "Forwarded with addresses alone", a: parsed("/", "Forwarded: for=10.0.0.1"), b: parsed("/")},
	{name: "another browser", a: parsed("/", "User-Agent: a", "Accept: x/y"), b: parsed("/", "User-Agent: b", "Accept: */*")},
	{name: "another user's Authorization, since the answer decides", a: parsed("/", "Authorization: a"), b: parsed("/", "Authorization: b")},
	{name: "a server behind a proxy that is written by hand", a: with(made("http://10.0.0.1/"), sentOn), b: with(made("http://10.0.0.2/"), sentOn)},
	{name: "a sidecar's upstream", a: with(parsed("/"), toward("10.0.0.1")), b: with(parsed("/"), toward("10.0.0.2"))},
	{name: "the same value of a field in Vary", a: parsed("/", "Accept-Encoding: gzip, br;q=0.5"), b: parsed("/", "Accept-Encoding: gzip,br; q=0.5"), vary: []string{"Accept-Encoding"}},
	{name: "a name in lower case", a: made("http://h/", "accept-language: de"), b: made("http://h/", "Accept-Language: de"), vary: []string{"Accept-Language"}},
	{name: "a parameter that was not chosen", a: parsed("/?id=1&utm=x"), b: parsed("/?id=1"), opts: []Option{WithQueryParameters("id")}},
	{name: "a parameter that was not chosen, alone", a: parsed("/?%75tm=x"), b: parsed("/"), opts: []Option{WithQueryParameters("id")}},
	{name: "a cache buster", a: parsed("/?_=1"), b: parsed("/?_=2"), opts: []Option{WithQueryParameters()}},
	{name: "another order", a: parsed("/?a=1&b=2&a=3"), b: parsed("/?b=2&a=1&a=3"), opts: []Option{WithSortedQuery()}},
}

func TestRequestsForTheSameHaveOneKey(t *testing.T) {
	for _, row := range sameKey {
		if a, b := keyOf(t, row.a, row.vary, row.opts...), keyOf(t, row.b, row.vary, row.opts...); a != b {
			t.Errorf("%s: %q and %q", row.name, a, b)
		}
	}
}

// sentOn makes a request one of a client, for a site of many servers.
func sentOn(r *http.Request) { r.Host, r.RemoteAddr = "shop.example", "192.0.2.1:4711" }

// toward sends a request on as a reverse proxy does, that keeps the client's Host.
func toward(upstream string) func(*http.Request) {
	return func(r *http.Request) { r.URL.Scheme, r.URL.Host = "http", upstream }
}

// get is a request for the same path, with these fields.
func get(lines ...string) *http.Request { return parsed("/", lines...) }

var otherKey = []pair{
	{name: "method", a: parsed("/"), b: parsed("HEAD /")},
	{name: "scheme", a: parsed("/"), b: certified(parsed("/"))},
	{name: "scheme of a program", a: made("http://h/"), b: made("https://h/")},
	{name: "host", a: get("Host: a"), b: get("Host: b")},
	{name: "host with a dot", a: get("Host: a"), b: get("Host: a.")},
	{name: "port", a: get("Host: a"), b: get("Host: a:8080")},
	{name: "the other scheme's port", a: get("Host: a"), b: get("Host: a:443")},
	{name: "host that lower case would make another's", a: made("http://k.example/"), b: made("http://\u212a.example/")},
	{name: "no host", a: get("Host: a"), b: get("Host:")},
	{name: "site of one server", a: with(made("http://a/"), func(r *http.Request) { r.Host = "x" }), b: with(made("http://b/"), func(r *http.Request) { r.Host = "x" })},
	{name: "host that holds a path", a: with(made("http://h/"), func(r *http.Request) { r.Host, r.URL.Host = "a/b", "a/b" }), b: made("http://a/b/")},

	{name: "path", a: parsed("/a"), b: parsed("/b")},
	{name: "case", a: parsed("/a"), b: parsed("/A")},
	{name: "an escaped slash", a: parsed("/a/b"), b: parsed("/a%2Fb")},
	{name: "escapes in lower case", a: parsed("/a%2fb"), b: parsed("/a%2Fb")},
	{name: "a letter that is escaped", a: parsed("/a"), b: parsed("/%61")},
	{name: "raw bytes", a: parsed("/\xc3\xbc"), b: parsed("/%C3%BC")},
	{name: "bytes that are not UTF-8", a: parsed("/\xff"), b: parsed("/%FF")},
	{name: "dots", a: parsed("/a/../b"), b: parsed("/b")},
	{name: "slashes", a: parsed("//a"), b: parsed("/a")},
	{name: "a slash at the end", a: parsed("/a/"), b: parsed("/a")},
	{name: "an escaped question mark", a: parsed("/a?b"), b: parsed("/a%3Fb")},
	{name: "a fragment that was sent", a: parsed("/a#b"), b: parsed("/a%23b")},
	{name: "path parameters", a: parsed("/a;b=1"), b: parsed("/a;b=2")},
	{name: "the absolute form, which handlers see", a: parsed("/a"), b: parsed("http://shop.example/a")},
	{name: "another scheme in the absolute form", a: parsed("https://shop.example/a"), b: certified(parsed("https://shop.example/a"))},
	{name: "a mount", a: with(parsed("/v1/a"), path("/a")), b: with(parsed("/v2/a"), path("/a"))},

	{name: "query", a: parsed("/?a=1"), b: parsed("/?a=2")},
	{name: "no query", a: parsed("/?page=1"), b: parsed("/")},
	{name: "an empty query", a: parsed("/?"), b: parsed("/")},
	{name: "order", a: parsed("/?a=1&b=2"), b: parsed("/?b=2&a=1")},
	{name: "a query that looks like a key", a: with(made("http://h/"), func(r *http.Request) { r.URL.RawQuery = "a #b" }), b: made("http://h/?a_#b")},
	{name: "order of one name's values", a: parsed("/?a=1&a=2"), b: parsed("/?a=2&a=1"), opts: []Option{WithSortedQuery()}},
	{name: "order of one name's values, escaped", a: parsed("/?a=1&%61=2"), b: parsed("/?%61=2&a=1"), opts: []Option{WithSortedQuery()}},
	{name: "order where case may not matter", a: parsed("/?a=1&A=2"), b: parsed("/?A=2&a=1"), opts: []Option{WithSortedQuery()}},
	{name: "order where brackets may", a: parsed("/?a[]=1&a[0]=2"), b: parsed("/?a[0]=2&a[]=1"), opts: []Option{WithSortedQuery()}},
	{name: "a chosen parameter", a: parsed("/?id=1"), b: parsed("/?id=2"), opts: []Option{WithQueryParameters("id")}},
	{name: "its second value", a: parsed("/?id=1&id=2"), b: parsed("/?id=1&id=3"), opts: []Option{WithQueryParameters("id")}},
	{name: "its name in upper case", a: parsed("/?ID=1"), b: parsed("/?ID=2"), opts: []Option{WithQueryParameters("Id")}},
	{name: "its name escaped", a: parsed("/?%69d=1"), b: parsed("/?%69d=2"), opts: []Option{WithQueryParameters("id")}},
	{name: "behind a semicolon", a: parsed("/?x=1;id=1"), b: parsed("/?x=1;id=2"), opts: []Option{WithQueryParameters("id")}},
	{name: "in brackets", a: parsed("/?id[]=1"), b: parsed("/?id[]=2"), opts: []Option{WithQueryParameters("id")}},
	{name: "behind a space", a: parsed("/?%20id=1"), b: parsed("/?%20id=2"), opts: []Option{WithQueryParameters("id")}},
	{name: "before a zero byte", a: parsed("/?id%00x=1"), b: parsed("/?id%00x=2"), opts: []Option{WithQueryParameters("id")}},
	{name: "with a broken escape", a: parsed("/?i%d=1"), b: parsed("/?i%d=2"), opts: []Option{WithQueryParameters("id")}},

	{name: "If-None-Match", a: get(`If-None-Match: "a"`), b: get(`If-None-Match: "b"`)},
	{name: "none", a: get(`If-None-Match: "a"`), b: get()},
	{name: "If-Modified-Since", a: get("If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT"), b: get("If-Modified-Since: Thu, 01 Jan 1970 00:00:01 GMT")},
	{name: "max-age=0", a: get("Cache-Control: max-age=0"), b: get()},
	{name: "Origin", a: get("Origin: https://a.example"), b: get("Origin: https://b.example")},
	{name: "Early-Data", a: get("Early-Data: 1"), b: get()},
	{name: "X-Forwarded-Host", a: get("X-Forwarded-Host: evil.example"), b: get()},
	{name: "its name in lower case", a: made("http://h/", "x-forwarded-host: a"), b: made("http://h/", "x-forwarded-host: b")},
	{name: "its name as CGI sees it", a: get("X_Forwarded_Host: evil.example"), b: get()},
	{name: "X-Forwarded-Proto", a: get("X-Forwarded-Proto: http"), b: get("X-Forwarded-Proto: https")},
	{name: "a user that a proxy names", a: get("X-Forwarded-User: ann"), b: get("X-Forwarded-User: bob")},
	{name: "a part of a page", a: get("HX-Request: true"), b: get()},
	{name: "a page for scripts", a: get("X-Requested-With: XMLHttpRequest"), b: get()},
	{name: "X-Original-URL", a: get("X-Original-URL: /admin"), b: get()},
	{name: "X-Api-Key", a: get("X-Api-Key: a"), b: get("X-Api-Key: b")},
	{name: "another client's token", a: get("Private-Token: a"), b: get("Private-Token: b")},
	{name: "another client's key", a: get("Ocp-Apim-Subscription-Key: a"), b: get("Ocp-Apim-Subscription-Key: b")},
	{name: "another client's token, and none", a: get("X-Shopify-Access-Token: a"), b: get()},
	{name: "another user, told by a proxy", a: get("X-Authenticated-Userid: a"), b: get("X-Authenticated-Userid: b")},
	{name: "another session in a field with _", a: get("X_Session_Id: a"), b: get("X_Session_Id: b")},
	{name: "a server's way to send files", a: get("X-Sendfile-Type: X-Sendfile"), b: get()},
	{name: "Forwarded's host", a: get("Forwarded: for=a;host=x"), b: get("Forwarded: for=a;host=y")},
	{name: "Forwarded with a quotation mark that does not end", a: get(`Forwarded: for="a;host=x`), b: get(`Forwarded: for="a;host=y`)},
	{name: "Forwarded for those who do not heed quotes", a: get(`Forwarded: for="a;host=x;"`), b: get(`Forwarded: for="a;host=y;"`)},
	{name: "a chosen field", a: get("X-Plan: a"), b: get("X-Plan: b"), opts: []Option{WithKeyFields("x-plan")}},
	{name: "a chosen field that is empty", a: get("X-Plan:"), b: get(), opts: []Option{WithKeyFields("x-plan")}},
	{name: "a second value", a: get("X-Plan: a, b"), b: get("X-Plan: a", "X-Plan: b"), opts: []Option{WithKeyFields("x-plan")}},
	{name: "a value that moved to another field", a: get("X-A: 1"), b: get("X-B: 1"), opts: []Option{WithKeyFields("X-A", "X-B")}},
	{name: "a chosen Authorization", a: get("Authorization: a"), b: get("Authorization: b"), opts: []Option{WithKeyFields("Authorization")}},
	{name: "a chosen Forwarded", a: get("Forwarded: for=a"), b: get("Forwarded: for=b"), opts: []Option{WithKeyFields("Forwarded")}},

	{name: "credentials", a: get("Authorization: a"), b: get()},
	{name: "a client certificate", a: certified(get(), &x509.Certificate{}), b: certified(get())},
	{name: "cookies", a: get("Cookie: a=b"), b: get(), opts: []Option{WithCookies()}},
	{name: "userinfo", a: made("http://ann:x@h/"), b: made("http://ann:y@h/")},
	{name: "identity", a: get("Cookie: user=ann"), b: get("Cookie: user=bob"), opts: []Option{user}},
	{name: "no identity", a: get("Cookie: user=ann"), b: get(), opts: []Option{user}},

	{name: "a field in Vary", a: get("Accept: a"), b: get("Accept: b"), vary: []string{"Accept"}},
	{name: "a field in Vary that is not there", a: get("Accept:"), b: get(), vary: []string{"Accept"}},
	{name: "a value in Vary that is the next field's name", a: get("A: B"), b: get("B: B"), vary: []string{"A", "B"}},
	{name: "a field in Vary in two lines", a: get("X: a, b"), b: get("X: a", "X: b"), vary: []string{"X"}},
	{name: "space in a field in Vary whose syntax is unknown", a: get("X: a, b"), b: get("X: a,b"), vary: []string{"X"}},
}

func TestASortedQueryKeepsTheOrderOfOneNamesValues(t *testing.T) {
	var mixed, as, bs []string
	for i := range 100 {
		a, b := fmt.Sprint("a=", i*37%100), fmt.Sprint("b=", i*37%100)
		as, bs = append(as, a), append(bs, b)
		mixed = append(mixed, b, a)
	}
	sorted := rulesOf(WithSortedQuery()).parametersOf(strings.Join(mixed, "&"))
	if want := strings.Join(as, "&") + "&" + strings.Join(bs, "&"); sorted != want {
		t.Errorf("it is %q", sorted)
	}
}

func TestRequestsThatDifferHaveTwoKeys(t *testing.T) {
	for _, row := range otherKey {
		if a, b := keyOf(t, row.a, row.vary, row.opts...), keyOf(t, row.b, row.vary, row.opts...); a == b {
			t.Errorf("%s: both are %q", row.name, a)
		}
	}
}

// path mounts a handler as http.StripPrefix does.
func path(to string) func(*http.Request) {
	return func(r *http.Request) { r.URL.Path, r.URL.RawPath = to, "" }
}

func TestAKeyNamesItsVaryEvenWhenNobodyHasTheFields(t *testing.T) {
	r := parsed("/")
	keys := map[string]string{}
	for name, vary := range map[string][]string{"none": nil, "one": {"A"}, "another": {"B"}, "both": {"A", "B"}, "one name": {"Ab"}} {
		key := keyOf(t, r, vary)
		if keys[key] != "" {
			t.Errorf("%s and %s have one key", name, keys[key])
		}
		keys[key] = name
	}
}

func TestAKeyIsForPeopleToReadAndShowsNoSecret(t *testing.T) {
	if key := keyOf(t, parsed("/a%20b?c=d"), nil); key != "GET http://shop.example/a%20b?c=d" {
		t.Errorf("%q", key)
	}
	long := strings.Repeat("x", 200)
	for name, key := range map[string]string{
		"identity":      keyOf(t, parsed("/a", "Cookie: user=secret"), nil, user),
		"Vary":          keyOf(t, parsed("/a", "Authorization: secret"), []string{"Authorization"}),
		"an API's key":  keyOf(t, parsed("/a", "X-Api-Key: secret"), nil),
		"a long target": keyOf(t, parsed("/a"+long+"secret"), nil),
		"control bytes": keyOf(t, with(made("http://shop.example/a"), func(r *http.Request) { r.URL.RawQuery = "\r\n\x00\x7f\xff" }), nil),
	} {
		if !strings.HasPrefix(key, "GET http://shop.example/a") || strings.Contains(key, "secret") || strings.ContainsAny(key, "\r\n\x00\x7f") {
			t.Errorf("%s: %q", name, key)
		}
	}
}

func TestAKeyCostsALoneRequestLittle(t *testing.T) {
	r := parsed("/product/1", "Accept: */*", "User-Agent: x", "Accept-Encoding: gzip")
	ru := rulesOf()
	allocs := testing.AllocsPerRun(100, func() {
		q, _ := ru.request(r)
		q.key(nil)
	})
	if allocs > 4 {
		t.Errorf("%v allocations", allocs)
	}
}
