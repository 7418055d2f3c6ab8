package httpmatrix

import (
	"fmt"
	"net/http"
	"strings"
)

var authorized = fields("Authorization", "Bearer a")

// answers are the rows about which answers are shared.
var answers = []Row{
	{Rule: "Cache-Control: no-store", Source: "RFC 9111 §5.2.2.5", Answer: says("Cache-Control", "no-store"), Want: Unshared},
	{Rule: "Cache-Control: no-cache", Source: "RFC 9111 §5.2.2.4", Answer: says("Cache-Control", "no-cache"), Want: Unshared},
	{Rule: "Cache-Control: no-cache with names", Source: "RFC 9111 §5.2.2.4", Answer: says("Cache-Control", `no-cache="X-Own"`), Want: Unshared},
	{Rule: "Cache-Control: private", Source: "RFC 9111 §5.2.2.7", Answer: says("Cache-Control", "private"), Want: Unshared},
	{Rule: "Cache-Control: PRIVATE among others", Source: "RFC 9111 §5.2", Answer: says("Cache-Control", "max-age=60, PRIVATE , x=y"), Want: Unshared},
	{Rule: "Cache-Control: private in a second line", Source: "RFC 9110 §5.3", Answer: says("Cache-Control", "max-age=60", "Cache-Control", "private"), Want: Unshared},
	{Rule: "Cache-Control: private in quotes is a value", Source: "RFC 9111 §5.2", Answer: says("Cache-Control", `x="private, no-store"`), Want: Shared},
	{Rule: "Cache-Control that is unknown", Source: "RFC 9111 §5.2.3", Answer: says("Cache-Control", "max-age=60, stale-while-revalidate=30"), Want: Shared},
	{Rule: "Cache-Control that cannot be read", Source: "RFC 9111 §4.2.1", Answer: says("Cache-Control", `x="private`), Want: Unshared},
	{Rule: "max-age=0 is about keeping", Source: "RFC 9111 §5.2.2.1", Answer: says("Cache-Control", "max-age=0"), Want: Shared},
	{Rule: "Pragma: no-cache", Source: "RFC 9111 §5.4", Answer: says("Pragma", "no-cache"), Want: Unshared},

	{Rule: "an authorised answer that says nothing", Source: "RFC 9111 §3.5", First: authorized, Want: Unshared},
	{Rule: "an authorised answer with max-age alone", Source: "RFC 9111 §3.5", First: authorized, Answer: says("Cache-Control", "max-age=60"), Want: Unshared},
	{Rule: "an authorised answer that is public", Source: "RFC 9111 §3.5", First: authorized, Second: fields("Authorization", "Bearer b"), Answer: says("Cache-Control", "public"), Want: Shared},
	{Rule: "an authorised answer with s-maxage", Source: "RFC 9111 §3.5", First: authorized, Second: fields("Authorization", "Bearer b"), Answer: says("Cache-Control", "s-maxage=60"), Want: Shared},
	{Rule: "an authorised answer with must-revalidate", Source: "RFC 9111 §3.5", First: authorized, Second: fields("Authorization", "Bearer b"), Answer: says("Cache-Control", "max-age=60, must-revalidate"), Want: Shared},
	{Rule: "an authorised answer that is public and no-store", Source: "RFC 9111 §5.2.2.5", First: authorized, Answer: says("Cache-Control", "public, no-store"), Want: Unshared},
	{Rule: "an authorised answer that is stale at once", Source: "RFC 9111 §3.5", First: authorized, Answer: says("Cache-Control", "max-age=0, must-revalidate"), Want: Unshared},

	{Rule: "Set-Cookie", Source: "RFC 9111 §7.3", Answer: says("Set-Cookie", "a=1", "Cache-Control", "public"), Want: Unshared},
	{Rule: "WWW-Authenticate", Source: "RFC 9110 §11.6.1", Answer: Answer{Status: http.StatusUnauthorized, Fields: []string{"WWW-Authenticate", `Digest nonce="a"`}}, Want: Unshared},
	{Rule: "Vary: *", Source: "RFC 9110 §12.5.5", Answer: says("Vary", "*"), Want: Unshared},
	{Rule: "Vary, and the same value", Source: "RFC 9111 §4.1", First: fields("Accept-Language", "de"), Answer: says("Vary", "Accept-Language"), Want: Shared},
	{Rule: "Vary, and another value", Source: "RFC 9111 §4.1", First: fields("Accept-Language", "de"), Second: fields("Accept-Language", "en"), Answer: says("Vary", "accept-language"), Want: Unshared},
	{Rule: "Vary, and no value", Source: "RFC 9111 §4.1", First: fields("Accept-Language", "de"), Second: fields(), Answer: says("Vary", "Accept-Language"), Want: Unshared},
	{Rule: "Vary: Cookie of others than ours", Source: "RFC 9111 §4.1", Settings: Settings{Cookies: true}, First: fields("Cookie", "a=1"), Second: fields("Cookie", "a=2"), Answer: says("Vary", "Cookie", "Cache-Control", "public"), Want: Unshared},
	{Rule: "an encoded answer depends on Accept-Encoding", Source: "RFC 9110 §8.4", First: fields("Accept-Encoding", "br"), Second: fields("Accept-Encoding", "identity"), Answer: says("Content-Encoding", "br"), Want: Unshared},

	{Rule: "206", Source: "RFC 9111 §3.3", Answer: Answer{Status: http.StatusPartialContent, Fields: []string{"Content-Range", "bytes 0-9/100"}}, Want: Unshared},
	{Rule: "304 to a request without a validator", Source: "RFC 9110 §15.4.5", Answer: Answer{Status: http.StatusNotModified, NoBody: true}, Want: Unshared},
	{Rule: "204", Source: "RFC 9110 §15.3.5", Answer: Answer{Status: http.StatusNoContent, NoBody: true}, Want: Shared},
	{Rule: "301", Source: "RFC 9110 §15.4.2", Answer: Answer{Status: http.StatusMovedPermanently, Fields: []string{"Location", "/elsewhere"}}, Want: Shared},
	{Rule: "400 is about one request's form", Source: "RFC 9110 §15.5.1", Answer: Answer{Status: http.StatusBadRequest}, Want: Unshared},
	{Rule: "404", Source: "RFC 9110 §15.5.5", Answer: Answer{Status: http.StatusNotFound}, Want: Shared},
	{Rule: "429 is about one client", Source: "RFC 6585 §4", Answer: Answer{Status: http.StatusTooManyRequests}, Want: Unshared},
	{Rule: "431 is about one request's form", Source: "RFC 6585 §5", Answer: Answer{Status: http.StatusRequestHeaderFieldsTooLarge}, Want: Unshared},
	{Rule: "500: one failure, not a thousand retries", Source: "RFC 9110 §15.6.1", Answer: Answer{Status: http.StatusInternalServerError}, Want: Shared},
	{Rule: "503", Source: "RFC 9110 §15.6.4", Answer: Answer{Status: http.StatusServiceUnavailable, Fields: []string{"Retry-After", "1"}}, Want: Shared},
	{Rule: "503 that is not to be stored", Source: "RFC 9111 §5.2.2.5", Answer: Answer{Status: http.StatusServiceUnavailable, Fields: []string{"Cache-Control", "no-store"}}, Want: Unshared},

	{Rule: "a trailer that is announced", Source: "RFC 9110 §6.5", Answer: Answer{Fields: []string{"Trailer", "X-Sum"}, Trailer: []string{"X-Sum", "1"}}, Want: Unshared},
	{Rule: "a trailer that is not announced", Source: "RFC 9110 §6.5", Answer: Answer{Handler: pieces(4, 1000), Trailer: []string{http.TrailerPrefix + "X-Sum", "1"}}, Want: Unshared},
	{Rule: "text/event-stream", Source: "HTML §9.2", Answer: says("Content-Type", "text/event-stream; charset=utf-8"), Want: Unshared},
	{Rule: "multipart/x-mixed-replace", Source: "HTML §7.5.4", Answer: says("Content-Type", "multipart/x-mixed-replace; boundary=x"), Want: Unshared},
	{Rule: "a body at the limit", Settings: Settings{BodyLimit: 1 << 10}, Answer: Answer{Handler: body(1<<10, false)}, Want: Shared},
	{Rule: "a body over the limit", Settings: Settings{BodyLimit: 1 << 10}, Answer: Answer{Handler: body(1<<10+1, false)}, Want: Unshared},
	{Rule: "a declared length over the limit", Settings: Settings{BodyLimit: 1 << 10}, Answer: Answer{Handler: body(1<<10+1, true)}, Want: Unshared},
	{Rule: "a body of many pieces", Answer: Answer{Handler: pieces(300, 1000)}, Want: Shared},

	{Rule: "Date, Age and ETag are as they came", Source: "RFC 9111 §5.1", Answer: says("Date", date, "Age", "7", "Etag", `"a"`), Want: Shared, Follower: has("Date", date, "Age", "7", "Etag", `"a"`)},
	{Rule: "fields of a connection are not passed on", Source: "RFC 9110 §7.6.1", Answer: says("Connection", "X-Hop", "X-Hop", "1", "Keep-Alive", "timeout=5", "Proxy-Connection", "x"), Want: Shared, Follower: has("X-Hop", "", "Keep-Alive", "", "Proxy-Connection", "")},
	{Rule: "a field with several values keeps them apart", Source: "RFC 9110 §5.3", Answer: says("Link", "<a>", "Link", "<b>"), Want: Shared, Follower: func(h http.Header) error {
		if got := h.Values("Link"); len(got) != 2 {
			return fmt.Errorf("the links are %q", got)
		}
		return nil
	}},
}

// body returns a handler of a body of that many bytes.
func body(bytes int, declared bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if declared {
			w.Header().Set("Content-Length", fmt.Sprint(bytes))
		}
		_, _ = w.Write([]byte(strings.Repeat("x", bytes)))
	}
}

// pieces returns a handler of a body in n pieces.
func pieces(n, bytes int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := range n {
			_, _ = w.Write([]byte(strings.Repeat(string(rune('a'+i%26)), bytes)))
		}
	}
}

// has returns a check that a header has these values; an empty one is not there.
func has(want ...string) func(http.Header) error {
	return func(h http.Header) error {
		for i := 0; i < len(want); i += 2 {
			if got := h.Get(want[i]); got != want[i+1] {
				return fmt.Errorf("%s is %q, not %q", want[i], got, want[i+1])
			}
		}
		return nil
	}
}
