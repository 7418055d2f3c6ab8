package httpmatrix

import "net/http"

// requests are the rows about which requests are merged, and what their key is.
var requests = []Row{
	{Rule: "two GETs of one target are merged", Source: "RFC 9110 §9.3.1", Want: Shared},
	{Rule: "two HEADs are merged", Source: "RFC 9110 §9.3.2", First: Request{Method: "HEAD"}, Answer: Answer{NoBody: true}, Want: Shared},
	{Rule: "a HEAD is not merged with a GET", Source: "RFC 9110 §9.3.2", First: Request{Method: "GET"}, Second: Request{Method: "HEAD"}, Answer: Answer{NoBody: true}, Want: Apart},
	{Rule: "a POST is not merged", Source: "RFC 9110 §9.2.1", First: Request{Method: "POST", Body: "x"}, Want: Alone},
	{Rule: "a PUT is not merged", Source: "RFC 9110 §9.2.1", First: Request{Method: "PUT", Body: "x"}, Want: Alone},
	{Rule: "a PATCH is not merged", Source: "RFC 9110 §9.2.1", First: Request{Method: "PATCH", Body: "x"}, Want: Alone},
	{Rule: "a DELETE is not merged", Source: "RFC 9110 §9.2.1", First: Request{Method: "DELETE"}, Want: Alone},
	{Rule: "an OPTIONS is not merged", Source: "RFC 9110 §9.3.7", First: Request{Method: "OPTIONS"}, Want: Alone},
	{Rule: "a DELETE does not get a GET's answer", Source: "RFC 9110 §9.2.1", First: Request{Method: "GET"}, Second: Request{Method: "DELETE"}, Want: Apart},
	{Rule: "a GET with a body is not merged", Source: "RFC 9110 §9.3.1", First: Request{Body: "x"}, Want: Alone},
	{Rule: "X-HTTP-Method-Override", Source: "servers' custom", First: fields("X-HTTP-Method-Override", "DELETE"), Want: Alone},

	{Rule: "another query is another target", Source: "RFC 9111 §2", First: Request{Target: "/page?page=1"}, Second: Request{Target: "/page?page=2"}, Want: Apart},
	{Rule: "no query is not an empty one", Source: "RFC 9111 §2", First: Request{Target: "/page"}, Second: Request{Target: "/page?"}, Want: Apart},
	{Rule: "another path is another target", Source: "RFC 9111 §2", First: Request{Target: "/page"}, Second: Request{Target: "/page/"}, Want: Apart},
	{Rule: "paths are not decoded", Source: "RFC 9110 §4.2.3", First: Request{Target: "/a/b"}, Second: Request{Target: "/a%2Fb"}, Want: Apart},
	{Rule: "another host is another target", Source: "RFC 9111 §2", First: Request{Host: "a.example"}, Second: Request{Host: "b.example"}, Want: Apart},
	{Rule: "hosts are the same in any case", Source: "RFC 9110 §4.2.3", First: Request{Host: "A.example"}, Second: Request{Host: "a.EXAMPLE"}, Want: Shared},
	{Rule: "the default port is no part of a host", Source: "RFC 9110 §4.2.3", First: Request{Host: "a.example:80"}, Second: Request{Host: "a.example"}, Want: Shared},
	{Rule: "parameters in another order are another query", Source: "RFC 9111 §2", First: Request{Target: "/page?a=1&b=2"}, Second: Request{Target: "/page?b=2&a=1"}, Want: Apart},
	{Rule: "sorted parameters are the same in any order", Settings: Settings{SortedQuery: true}, First: Request{Target: "/page?a=1&b=2"}, Second: Request{Target: "/page?b=2&a=1"}, Want: Shared},
	{Rule: "parameters that were not chosen do not matter", Settings: Settings{QueryParameters: []string{"id"}}, First: Request{Target: "/page?id=1&utm=x"}, Second: Request{Target: "/page?id=1&utm=y"}, Want: Shared},
	{Rule: "parameters that were chosen matter", Settings: Settings{QueryParameters: []string{"id"}}, First: Request{Target: "/page?id=1"}, Second: Request{Target: "/page?id=2"}, Want: Apart},
	{Rule: "User-Agent does not matter", Source: "RFC 9111 §4.1", First: fields("User-Agent", "a"), Second: fields("User-Agent", "b"), Want: Shared},
	{Rule: "a field that was chosen matters", Settings: Settings{KeyFields: []string{"X-Experiment"}}, First: fields("X-Experiment", "a"), Second: fields("X-Experiment", "b"), Want: Apart},
	{Rule: "a field that was not chosen does not matter", First: fields("X-Experiment", "a"), Second: fields("X-Experiment", "b"), Want: Shared},
	{Rule: "Origin matters", Source: "Fetch §3.3.5", First: fields("Origin", "https://a.example"), Second: fields("Origin", "https://b.example"), Want: Apart},
	{Rule: "X-Api-Key matters", First: fields("X-Api-Key", "a"), Second: fields("X-Api-Key", "b"), Want: Apart},

	{Rule: "Range", Source: "RFC 9110 §14.2", First: fields("Range", "bytes=0-9"), Want: Alone},
	{Rule: "If-Range", Source: "RFC 9110 §13.1.5", First: fields("If-Range", `"a"`), Want: Alone},
	{Rule: "If-Match", Source: "RFC 9110 §13.1.1", First: fields("If-Match", `"a"`), Want: Alone},
	{Rule: "If-Unmodified-Since", Source: "RFC 9110 §13.1.4", First: fields("If-Unmodified-Since", date), Want: Alone},
	{Rule: "the same If-None-Match is merged, and its 304 shared", Source: "RFC 9110 §13.1.2", First: fields("If-None-Match", `"a"`), Answer: Answer{Status: http.StatusNotModified, NoBody: true}, Want: Shared},
	{Rule: "another If-None-Match is apart", Source: "RFC 9110 §13.1.2", First: fields("If-None-Match", `"a"`), Second: fields("If-None-Match", `"b"`), Want: Apart},
	{Rule: "a conditional request is apart from one that is not", Source: "RFC 9110 §13.1.3", First: fields("If-Modified-Since", date), Second: fields(), Want: Apart},
	{Rule: "Expect", Source: "RFC 9110 §10.1.1", First: fields("Expect", "100-continue"), Want: Alone},
	{Rule: "Connection: Upgrade", Source: "RFC 9110 §7.8", First: fields("Connection", "Upgrade", "Upgrade", "websocket"), Want: Alone},
	{Rule: "Cache-Control: no-cache asks for an answer of its own", Source: "RFC 9111 §5.2.1.4", First: fields("Cache-Control", "no-cache"), Want: Alone},
	{Rule: "Cache-Control: no-store asks for an answer of its own", Source: "RFC 9111 §5.2.1.5", First: fields("Cache-Control", "no-store"), Want: Alone},
	{Rule: "Pragma: no-cache asks for an answer of its own", Source: "RFC 9111 §5.4", First: fields("Pragma", "no-cache"), Want: Alone},
	{Rule: "max-age=0 is merged: a flight's answer is younger", Source: "RFC 9111 §5.2.1.1", First: fields("Cache-Control", "max-age=0"), Want: Shared},

	{Rule: "Cookie", Source: "RFC 9111 §7.3", First: fields("Cookie", "a=1"), Answer: says("Cache-Control", "public"), Want: Alone},
	{Rule: "with the option, a Cookie's answer that is public is shared", Source: "RFC 9111 §3.5", Settings: Settings{Cookies: true}, First: fields("Cookie", "a=1"), Second: fields("Cookie", "a=2"), Answer: says("Cache-Control", "public"), Want: Shared},
	{Rule: "with the option, a Cookie's answer that says nothing is not shared", Source: "RFC 9111 §3.5", Settings: Settings{Cookies: true}, First: fields("Cookie", "a=1"), Second: fields("Cookie", "a=2"), Want: Unshared},
	{Rule: "one who is authorised is apart from one who is not", Source: "RFC 9111 §3.5", First: fields("Authorization", "Bearer a"), Second: fields(), Answer: says("Cache-Control", "public"), Want: Apart},
	{Rule: "another identity is apart", Settings: Settings{IdentityField: "X-Who"}, First: fields("X-Who", "a"), Second: fields("X-Who", "b"), Want: Apart},
	{Rule: "one identity's private answer is shared", Source: "RFC 9111 §5.2.2.7", Settings: Settings{IdentityField: "X-Who"}, First: fields("X-Who", "a", "Cookie", "a=1"), Answer: says("Cache-Control", "private"), Want: Shared},
	{Rule: "an empty identity is nobody's", Source: "RFC 9111 §5.2.2.7", Settings: Settings{IdentityField: "X-Who"}, First: fields(), Answer: says("Cache-Control", "private"), Want: Unshared},
}

const date = "Sun, 29 Nov 2026 21:00:00 GMT"
