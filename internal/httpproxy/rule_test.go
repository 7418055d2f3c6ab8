package httpproxy

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
)

func TestARuleHoldsForEveryWayToWriteItsPath(t *testing.T) {
	for _, c := range []struct {
		pattern, target string
		want            bool
	}{
		{"/", "/", true},
		{"/", "/a", false},
		{"/a", "/a", true},
		{"/a", "/a?b=c", true},
		{"/a", "/a/", false},
		{"/a", "/ab", false},
		{"/a", "/A", false},
		{"/a/", "/a/", true},
		{"/a", "//a", true},
		{"/a", "/./a", true},
		{"/a", "/b/../a", true},
		{"/a", "/%61", true},
		{"/a/b", "/a%2Fb", true},
		{"/a/*", "/a/b", true},
		{"/a/*", "/a/", false},
		{"/a/*", "/a", false},
		{"/a/*", "/a/b/c", false},
		{"/*/b", "/a/b", true},
		{"/a/**", "/a", true},
		{"/a/**", "/a/", true},
		{"/a/**", "/a/b/c/", true},
		{"/a/**", "/ab", false},
		{"/a/**", "/b/..%2Fa/c", true},
		{"/**", "/", true},
		{"/**", "/a/b", true},
		{"/a/*/**", "/a", false},
		{"/a/*/**", "/a/b", true},
	} {
		u, err := url.ParseRequestURI(c.target)
		if err != nil {
			t.Fatal(err)
		}
		if got := newPattern(c.pattern).matches(segmentsOf(u)); got != c.want {
			t.Errorf("%s holds for %s: %v", c.pattern, c.target, got)
		}
	}
}

func TestAnIdentityThatComesTwiceIsNobodys(t *testing.T) {
	field := (&Rule{IdentityField: "X-User"}).identity()
	cookie := (&Rule{IdentityCookie: "session"}).identity()
	request := func(fields ...string) *http.Request {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		for i := 0; i < len(fields); i += 2 {
			r.Header.Add(fields[i], fields[i+1])
		}
		return r
	}
	for _, c := range []struct {
		identity func(*http.Request) string
		request  *http.Request
		want     string
	}{
		{field, request(), ""},
		{field, request("X-User", "a"), "a"},
		{field, request("X-User", "a", "X-User", "b"), ""},
		{cookie, request("X-User", "a"), ""},
		{cookie, request("Cookie", "session=a; theme=dark"), "a"},
		{cookie, request("Cookie", "session=a; session=b"), ""},
	} {
		if got := c.identity(c.request); got != c.want {
			t.Errorf("%v: %q, want %q", c.request.Header, got, c.want)
		}
	}
	if (&Rule{}).identity() != nil {
		t.Error("a rule without an identity has one")
	}
}
