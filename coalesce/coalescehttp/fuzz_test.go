package coalescehttp

import (
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzAnswerHeader holds the reading of Cache-Control and Vary to the plainest reading
// that there could be.
func FuzzAnswerHeader(f *testing.F) {
	for _, seed := range []string{"", "no-store", `private="a, b", max-age=1`, `x="no-store`, `x="\"", no-store`, "PUBLIC,,s-maxage=\"1\"", "max-age=1; private", "a=b=c", "no-store\x00", "*, a", "\xff", `"no-store"`} {
		f.Add(seed, seed, 200)
	}
	f.Fuzz(func(t *testing.T, cacheControl, vary string, status int) {
		h := http.Header{"Cache-Control": {cacheControl}, "Vary": {vary}}
		authorized := &request{r: &http.Request{}, credentials: true}
		reason := authorized.answer(status, h, false, 1)
		if reason != "" && !slices.Contains(Reasons(), reason) {
			t.Fatalf("the reason is %q", reason)
		}
		if reason == "" {
			// Whoever has credentials shares only by an explicit word, and then no other
			// word may stand outside quotation marks.
			words := strings.FieldsFunc(lower(unquoted(cacheControl)), func(c rune) bool { return c == ',' || c == ' ' || c == '\t' || c == '=' })
			if slices.Contains(words, "no-store") || slices.Contains(words, "private") || slices.Contains(words, "no-cache") {
				t.Fatalf("%q is shared", cacheControl)
			}
			if !slices.Contains(words, "public") && !slices.Contains(words, "s-maxage") && !slices.Contains(words, "must-revalidate") {
				t.Fatalf("%q allows to share", cacheControl)
			}
			if slices.Contains(strings.FieldsFunc(vary, func(c rune) bool { return c == ',' || c == ' ' || c == '\t' }), "*") {
				t.Fatalf("Vary %q is shared", vary)
			}
		}
		names := authorized.vary(h)
		if len(names) > maxVary || !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
			t.Fatalf("%q names %q", vary, names)
		}
		for _, name := range names {
			if name != http.CanonicalHeaderKey(name) || !strings.Contains(lower(vary), lower(name)) {
				t.Fatalf("%q names %q", vary, name)
			}
		}
	})
}

// unquoted removes quoted strings.
func unquoted(s string) string {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case !quoted:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// what is all that a fuzzed request consists of, as it is sent.
type what struct{ method, host, path, query, name, value, identity string }

func (w what) request() (*http.Request, bool) {
	u, err := url.ParseRequestURI(w.path)
	if err != nil || !strings.HasPrefix(w.path, "/") || w.path != u.EscapedPath() {
		return nil, false
	}
	u.RawQuery, u.Scheme, u.Host = w.query, "http", w.host
	r := &http.Request{Method: w.method, URL: u, Host: w.host, Header: http.Header{}}
	if w.name != "" {
		r.Header[w.name] = []string{w.value}
	}
	return r, true
}

// FuzzKey makes two requests: they have one key if and only if they do not differ in
// anything that matters.
func FuzzKey(f *testing.F) {
	f.Add("GET", "h", "/a", "b=c", "X-Plan", "x", "ann", "GET", "h", "/a", "b=c", "X-Plan", "x", "bob")
	f.Add("GET", "h", "/a", "b #c", "", "", "", "GET", "h", "/a", "b_#c", "", "", "")
	f.Add("GET", "h:80", "/", "", "Accept", "a, b", "", "HEAD", "H", "/", "", "Accept", "a,b", "")
	f.Add("GET", "h", "/a%2f", "", "x-plan", "", "", "GET", "h", "/a%2F", "", "X-Plan", "", "\x00")
	f.Add("GET", "h/a", "/", "", "X-Forwarded-Host", "x", "", "GET", "h", "/a/", "", "", "", "")
	vary := []string{"Accept", "Accept-Language"}
	f.Fuzz(func(t *testing.T, m1, h1, p1, q1, n1, v1, i1, m2, h2, p2, q2, n2, v2, i2 string) {
		a, b := what{m1, h1, p1, q1, n1, v1, i1}, what{m2, h2, p2, q2, n2, v2, i2}
		keyA, okA := fuzzedKey(a, vary)
		keyB, okB := fuzzedKey(b, vary)
		if !okA || !okB {
			return
		}
		if again, _ := fuzzedKey(a, vary); again != keyA {
			t.Fatalf("%+v has two keys: %q, %q", a, keyA, again)
		}
		if len(keyA) > 200 || !isVisible(strings.ReplaceAll(keyA, " ", "_")) {
			t.Fatalf("%+v has the key %q", a, keyA)
		}
		if same := a.matters() == b.matters(); same != (keyA == keyB) {
			t.Fatalf("%+v and %+v: %q and %q", a, b, keyA, keyB)
		}
	})
}

func fuzzedKey(w what, vary []string) (string, bool) {
	r, ok := w.request()
	if !ok {
		return "", false
	}
	ru := rulesOf(WithKeyFields("X-Plan"), WithIdentity(func(*http.Request) string { return w.identity }))
	q, reason := ru.request(r)
	if reason != "" {
		return "", false
	}
	return q.key(vary), true
}

// matters returns w without what does not matter, found in another way than keys are.
func (w what) matters() what {
	w.host = strings.TrimSuffix(strings.TrimSuffix(asciiLower(w.host), ":80"), ":")
	if w.method == "" {
		w.method = http.MethodGet
	}
	canonical := http.CanonicalHeaderKey(w.name)
	switch class, _ := classify(http.CanonicalHeaderKey(strings.ReplaceAll(w.name, "_", "-"))); {
	case canonical == "Accept", canonical == "Accept-Language":
		w.name, w.value = canonical, withoutListSpace(trimSpace(w.value))
	case class == fieldCredentials && w.identity == "":
		w.name, w.value = "Authorization", ""
	case class == fieldCacheControl, class == fieldCondition, class == fieldKeyed:
		if w.name == "Forwarded" {
			w.value = forwardedSite(w.value)
			if strings.Trim(w.value, ",;") == "" {
				w.name, w.value = "", ""
			}
		}
	case http.CanonicalHeaderKey(strings.ReplaceAll(w.name, "_", "-")) == "X-Plan":
	default:
		w.name, w.value = "", ""
	}
	return w
}

func asciiLower(s string) string {
	b := []byte(s)
	for i := range b {
		if strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZ", b[i]) >= 0 {
			b[i] |= 0x20
		}
	}
	return string(b)
}

// FuzzQuery leaves parameters out and sorts them: a query that differs in a chosen
// parameter, however it is written, has another key.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"", "id=1", "a=1&id=2&a=3", "x=1;id=2", "%69d=1", "ID=3", "id[]=1", "&&", "=", "i%d=1", "+id=1", "id%00=1", "\xff=1"} {
		f.Add(seed, seed+"&id=9")
	}
	ru := rulesOf(WithQueryParameters("id"), WithSortedQuery())
	f.Fuzz(func(t *testing.T, a, b string) {
		valuesA, errA := url.ParseQuery(a)
		valuesB, errB := url.ParseQuery(b)
		keptA, keptB := ru.parametersOf(a), ru.parametersOf(b)
		if again := ru.parametersOf(keptA); again != keptA {
			t.Fatalf("%q becomes %q, and then %q", a, keptA, again)
		}
		if errA == nil && errB == nil && keptA == keptB && !slices.Equal(valuesA["id"], valuesB["id"]) {
			t.Fatalf("%q and %q both become %q", a, b, keptA)
		}
	})
}

// FuzzForwarded holds what is kept of a Forwarded field to what a careless server finds in
// it.
func FuzzForwarded(f *testing.F) {
	for _, seed := range []string{"for=a;host=h", `for="a;host=h`, `for="a\";host=h"`, "for=a, host=h", "host=h;for", "for", "by=x;for=y", `host="a,b";for=c`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		kept := lower(forwardedSite(value))
		for _, pair := range strings.FieldsFunc(lower(value), func(c rune) bool { return c == ';' || c == ',' }) {
			if pair = trimSpace(pair); strings.HasPrefix(pair, "host=") && !strings.Contains(kept, pair) {
				t.Fatalf("%q is kept as %q", value, kept)
			}
		}
	})
}

// FuzzAnswerBytes decodes what others may write to Redis.
func FuzzAnswerBytes(f *testing.F) {
	for _, a := range []*Answer{
		{Flight: "f", Status: 200, Header: http.Header{"A": {"b", ""}, "C": nil}, Body: []byte("body")},
		{Alone: ReasonPrivate, Vary: []string{"Cookie"}, Fields: "x"},
	} {
		data, _ := Codec().Marshal(a)
		f.Add(data)
	}
	f.Add([]byte("\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := Codec().Unmarshal(data)
		if err != nil {
			return
		}
		if a.Header == nil || a.Status > 999 || a.Alone == "" && a.Failure == nil && a.Status < 200 {
			t.Fatalf("%q became %+v", data, a)
		}
		if again, err := Codec().Marshal(a); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%q became %+v, and then %q, %v", data, a, again, err)
		}
	})
}
