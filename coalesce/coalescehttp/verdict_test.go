package coalescehttp

import (
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Those to whom answers are.
var (
	anonymous   = parsed("/")
	own         = made("http://h/")
	authorized  = parsed("/", "Authorization: Bearer t")
	ann         = parsed("/", "Cookie: user=ann", "Authorization: Bearer t")
	conditional = parsed("/", `If-None-Match: "a"`)
	head        = parsed("HEAD /")
)

type answerRow struct {
	name   string
	r      *http.Request
	status int
	header http.Header
	want   Reason
}

var answerRows = []answerRow{
	{"200", anonymous, 200, nil, ""},
	{"a redirect", anonymous, 302, header("Location: /a"), ""},
	{"404", anonymous, 404, nil, ""},
	{"500", anonymous, 500, nil, ""},
	{"503", anonymous, 503, header("Retry-After: 1"), ""},
	{"103", anonymous, 103, nil, ReasonStatus},
	{"101", anonymous, 101, header("Upgrade: websocket"), ReasonStatus},
	{"400, which a malformed field may be the reason for", anonymous, 400, nil, ReasonStatus},
	{"401 to a client", anonymous, 401, nil, ReasonStatus},
	{"403 to a client, for whom it may be", anonymous, 403, nil, ReasonStatus},
	{"403 to a client of a proxy that is written by hand", with(made("http://h/"), sentOn), 403, nil, ReasonStatus},
	{"403 to the program", own, 403, nil, ""},
	{"406", anonymous, 406, nil, ReasonStatus},
	{"426", anonymous, 426, nil, ReasonStatus},
	{"451 to a client, whose country may be why", anonymous, 451, nil, ReasonStatus},
	{"408", anonymous, 408, nil, ReasonStatus},
	{"421", anonymous, 421, nil, ReasonStatus},
	{"425", anonymous, 425, nil, ReasonStatus},
	{"428", anonymous, 428, nil, ReasonStatus},
	{"429 to a client that may have a limit of its own", anonymous, 429, nil, ReasonStatus},
	{"429 to the program", own, 429, nil, ""},
	{"431 to one whose fields are too large", anonymous, 431, nil, ReasonStatus},
	{"511", anonymous, 511, nil, ReasonStatus},
	{"304 to nobody's condition", anonymous, 304, nil, ReasonStatus},
	{"304 to the condition that is in the key", conditional, 304, nil, ""},
	{"206", anonymous, 206, nil, ReasonPartial},

	{"no-store", anonymous, 200, header("Cache-Control: no-store"), ReasonNoStore},
	{"no-store that a must-understand weakens", anonymous, 200, header("Cache-Control: must-understand, no-store, max-age=9"), ReasonNoStore},
	{"no-store to an identity", ann, 200, header("Cache-Control: no-store"), ReasonNoStore},
	{"no-store by a handler that does not heed case", anonymous, 200, header("cache-control: no-store"), ReasonNoStore},
	{"no-cache", anonymous, 200, header("Cache-Control: no-cache"), ReasonNoCache},
	{"no-cache of a field", anonymous, 200, header(`Cache-Control: no-cache="x-a, x-b"`), ReasonNoCache},
	{"no-cache to an identity", ann, 200, header("Cache-Control: no-cache"), ReasonNoCache},
	{"Pragma", anonymous, 200, header("Pragma: no-cache"), ReasonNoCache},
	{"Pragma beside Cache-Control", anonymous, 200, header("Pragma: no-cache", "Cache-Control: max-age=9"), ""},
	{"private", anonymous, 200, header("Cache-Control: private"), ReasonPrivate},
	{"private in a second line", anonymous, 200, header("Cache-Control: public", "Cache-Control: PRIVATE"), ReasonPrivate},
	{"private of a field", anonymous, 200, header(`Cache-Control: private="x-a"`), ReasonPrivate},
	{"private to an identity", ann, 200, header("Cache-Control: private"), ""},
	{"no-store in a string", anonymous, 200, header(`Cache-Control: x="a, no-store"`), ""},
	{"a string without an end", anonymous, 200, header(`Cache-Control: x="a, no-store`), ReasonCacheControl},
	{"a missing comma", anonymous, 200, header("Cache-Control: max-age=1 private"), ReasonCacheControl},
	{"a semicolon for a comma", anonymous, 200, header("Cache-Control: private; max-age=1"), ReasonCacheControl},
	{"Cache-Control that cannot be read, to an identity", ann, 200, header("Cache-Control: max-age=1 no-store"), ReasonCacheControl},
	{"no-store for caches of servers", anonymous, 200, header("Cache-Control: max-age=9", "CDN-Cache-Control: no-store"), ReasonNoStore},
	{"private for them", anonymous, 200, header("Surrogate-Control: private"), ReasonPrivate},
	{"what cannot be read for them", anonymous, 200, header("CDN-Cache-Control: max-age=9;no-store"), ReasonCacheControl},
	{"public for them alone", authorized, 200, header("CDN-Cache-Control: public"), ReasonCredentials},
	{"unknown directives and empty ones", anonymous, 200, header("Cache-Control: , x, , y=z,"), ""},
	{"stale from the start", anonymous, 200, header("Cache-Control: max-age=0, must-revalidate"), ""},
	{"stale-while-revalidate", anonymous, 200, header("Cache-Control: max-age=1, stale-while-revalidate=9, stale-if-error=9"), ""},

	{"credentials", authorized, 200, nil, ReasonCredentials},
	{"credentials and max-age", authorized, 200, header("Cache-Control: max-age=9"), ReasonCredentials},
	{"credentials and public", authorized, 200, header("Cache-Control: public"), ""},
	{"credentials and public with an argument, which it has not", authorized, 200, header("Cache-Control: public=x"), ReasonCredentials},
	{"credentials and s-maxage", authorized, 200, header(`Cache-Control: s-maxage="9"`), ""},
	{"credentials and must-revalidate", authorized, 200, header("Cache-Control: must-revalidate"), ""},
	{"credentials and proxy-revalidate", authorized, 200, header("Cache-Control: proxy-revalidate, max-age=9"), ReasonCredentials},
	{"credentials, to be asked about each time", authorized, 200, header("Cache-Control: max-age=0, must-revalidate"), ReasonCredentials},
	{"credentials and s-maxage=0", authorized, 200, header("Cache-Control: public, max-age=9, s-maxage=0"), ReasonCredentials},
	{"credentials and s-maxage for all but max-age=0", authorized, 200, header("Cache-Control: max-age=0, s-maxage=9"), ""},
	{"credentials and two s-maxage", authorized, 200, header("Cache-Control: s-maxage=9, s-maxage=0"), ReasonCredentials},
	{"credentials and two s-maxage, the first 0", authorized, 200, header("Cache-Control: s-maxage=0, s-maxage=9"), ReasonCredentials},
	{"credentials and s-maxage that is no number", authorized, 200, header("Cache-Control: public, s-maxage=-1"), ReasonCredentials},
	{"credentials and Expires in the past", authorized, 200, header("Cache-Control: must-revalidate", "Expires: 0"), ReasonCredentials},
	{"credentials and Expires now", authorized, 200, header("Cache-Control: public", "Date: Thu, 01 Jan 1970 00:00:09 GMT", "Expires: Thu, 01 Jan 1970 00:00:09 GMT"), ReasonCredentials},
	{"credentials and Expires later", authorized, 200, header("Cache-Control: public", "Date: Thu, 01 Jan 1970 00:00:09 GMT", "Expires: Thu, 01 Jan 1970 00:00:10 GMT"), ""},
	{"credentials, public and private", authorized, 200, header("Cache-Control: public, private"), ReasonPrivate},
	{"credentials and an identity", ann, 200, nil, ""},

	{"Set-Cookie", anonymous, 200, header("Set-Cookie: a=b", "Cache-Control: public"), ReasonSetCookie},
	{"Set-Cookie to an identity", ann, 200, header("Set-Cookie: a=b"), ReasonSetCookie},
	{"a challenge", own, 401, header(`Www-Authenticate: Digest nonce="x"`), ReasonChallenge},
	{"a proxy's challenge", own, 407, header("Proxy-Authenticate: Negotiate"), ReasonChallenge},
	{"a step of authentication", anonymous, 200, header(`Authentication-Info: nextnonce="x"`), ReasonChallenge},
	{"401 without a challenge, to the program", own, 401, nil, ""},
	{"Vary", anonymous, 200, header("Vary: Accept"), ""},
	{"Vary: *", anonymous, 200, header("Vary: Accept, *"), ReasonVary},
	{"Vary: * in a second line", anonymous, 200, header("Vary: Accept", "Vary: *"), ReasonVary},
	{"Vary that cannot be read", anonymous, 200, header("Vary: Accept Cookie"), ReasonVary},
	{"Vary without an end", anonymous, 200, header("Vary: " + strings.Repeat("a", 1025)), ReasonVary},
	{"Vary of everything", anonymous, 200, header("Vary: " + names(33)), ReasonVary},
	{"Trailer", anonymous, 200, header("Trailer: Server-Timing"), ReasonTrailer},
	{"a trailer field that a handler set", anonymous, 200, header(http.TrailerPrefix + "X: y"), ReasonTrailer},
	{"events", anonymous, 200, header("Content-Type: Text/Event-Stream; charset=utf-8"), ReasonStreams},
	{"a film of pictures", anonymous, 200, header("Content-Type: multipart/x-mixed-replace;boundary=x"), ReasonStreams},
	{"a long body", anonymous, 200, header("Content-Length: 1001"), ReasonTooLarge},
	{"a body up to the limit", anonymous, 200, header("Content-Length: 1000"), ""},
	{"a body that HEAD does not send", head, 200, header("Content-Length: 1001"), ""},
	{"a body that 304 does not send", conditional, 304, header("Content-Length: 1001"), ""},
}

func TestAnAnswerIsSharedOrNotAsTheTableSays(t *testing.T) {
	for _, row := range answerRows {
		q, reason := rulesOf(user).request(row.r)
		if reason != "" {
			t.Fatalf("%s: the request is not merged: %s", row.name, reason)
		}
		if got := q.answer(row.status, row.header, false, 1000); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
	byRules := Reasons()[slices.Index(Reasons(), ReasonStatus):slices.Index(Reasons(), ReasonSlow)]
	for _, reason := range byRules {
		if reason != ReasonHijacked && reason != ReasonUnanswered && !slices.ContainsFunc(answerRows, func(r answerRow) bool { return r.want == reason }) {
			t.Errorf("no row is not shared because of %q", reason)
		}
	}
	q, _ := rulesOf().request(anonymous)
	if got := q.answer(200, nil, true, 1000); got != ReasonTrailer {
		t.Errorf("trailer fields that the header does not announce: %q", got)
	}
}

func names(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprint("x", i))
	}
	return strings.Join(list, ",")
}

func TestAVerdictThatAClientCanProvokeIsNotRemembered(t *testing.T) {
	for _, reason := range Reasons() {
		provoked := slices.Contains([]Reason{ReasonStatus, ReasonUnanswered, ReasonUnreachable, ReasonClosed, ReasonExcluded, ReasonRemembered}, reason) ||
			slices.Index(Reasons(), reason) < slices.Index(Reasons(), ReasonExcluded)
		if reason.lasting() == provoked {
			t.Errorf("%s: lasting is %v", reason, reason.lasting())
		}
	}
}

func TestVaryIsReadAsAList(t *testing.T) {
	q, _ := rulesOf().request(parsed("/"))
	for _, row := range []struct {
		header http.Header
		want   []string
	}{
		{nil, nil},
		{header("Vary:"), nil},
		{header("Vary: accept-language, ,ACCEPT", "Vary: Accept"), []string{"Accept", "Accept-Language"}},
		{header("vary: origin"), []string{"Origin"}},
		{header("Content-Encoding: gzip"), []string{"Accept-Encoding"}},
		{header("Content-Encoding: gzip", "Vary: Accept-Encoding, Cookie"), []string{"Accept-Encoding", "Cookie"}},
	} {
		if got := q.vary(row.header); !slices.Equal(got, row.want) {
			t.Errorf("%v: %q, want %q", row.header, got, row.want)
		}
	}
}

func TestAnAnswerIsForRequestsWithTheSameSelection(t *testing.T) {
	vary := []string{"Accept-Language", "Cookie", "Host"}
	selection := func(lines ...string) string {
		q, reason := rulesOf(WithCookies()).request(parsed("/", lines...))
		if reason != "" {
			t.Fatal(reason)
		}
		return q.selection(vary)
	}
	if a, b := selection("Accept-Language: de, en", "Cookie: a"), selection("accept-language: de,en", "Cookie: a", "Accept: x"); a != b || a == "" {
		t.Errorf("%q and %q", a, b)
	}
	for _, other := range [][]string{{"Accept-Language: en, de", "Cookie: a"}, {"Accept-Language: de, en", "Cookie: b"}, {"Accept-Language: de, en"}, {}} {
		if selection("Accept-Language: de, en", "Cookie: a") == selection(other...) {
			t.Errorf("%q have the same selection", other)
		}
	}
}

func TestFollowersGetNothingOfTheLeadersConnection(t *testing.T) {
	from := header("Date: now", "Age: 3", "ETag: x", "X-A: 1", "X-A: 2", "Content-Length: 5", "Cache-Control: public", "Upgrade-Insecure-Requests: 1",
		"Connection: close, x-hop", "Connection: X-Other", "X-Hop: 1", "X-Other: 1", "Keep-Alive: timeout=5", "Proxy-Connection: x",
		"Te: trailers", "Trailer: X-Sum", "transfer-encoding: chunked", "Upgrade: h2c", RoleHeader+": leader", FlightHeader+": abc")
	got := shared(from)
	want := http.Header{"Date": {"now"}, "Age": {"3"}, "Etag": {"x"}, "X-A": {"1", "2"}, "Content-Length": {"5"}, "Cache-Control": {"public"}, "Upgrade-Insecure-Requests": {"1"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("they get %v, want %v", got, want)
	}
	got.Set("Date", "later")
	got["X-A"][0] = "changed"
	if from["Date"][0] != "now" || from["X-A"][0] != "1" {
		t.Error("it is not a copy")
	}
	if shared(nil) == nil {
		t.Error("it is nil, and a caller that sets a field panics")
	}
}
