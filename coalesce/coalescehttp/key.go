package coalescehttp

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const (
	// keyVersion is changed with what goes into keys, so that replicas of two versions do
	// not take requests for the same that one of them tells apart.
	keyVersion = 1
	// maxTarget is the length of the longest target that stands in a key as it is, in
	// bytes. With a digest, a key is shorter than the 200 bytes up to which it stands in
	// Redis as it is.
	maxTarget = 150
)

// identify makes the parts of q's key, of which keyed are the names of fields. It is false
// for a target that no http server is asked for.
//
// Each part stands behind its length, so that no two lists of parts have one encoding.
func (q *request) identify(ru *rules, keyed []string) bool {
	r, u := q.r, q.r.URL
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	scheme := lower(u.Scheme)
	if scheme == "" {
		scheme = "http"
		if r.TLS != nil {
			scheme = "https"
		}
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/" // RFC 9110, §4.2.3
	}
	if u.Opaque != "" || path[0] != '/' || scheme != "http" && scheme != "https" {
		return false
	}
	host := r.Host
	if host == "" {
		host = u.Host
	}
	host = normalHost(host, scheme)
	query := ru.query(u)
	q.target = method + " " + scheme + "://" + host + path + query
	q.plain = len(q.target) <= maxTarget && !strings.ContainsAny(host, "/?#") && isVisible(q.target[len(method)+1:])

	b := append(make([]byte, 0, 512), keyVersion)
	for _, part := range [...]string{method, scheme, host, path, query} {
		b = appendString(b, part)
	}
	q.base = b
	q.addExtras(scheme, host, path)
	slices.Sort(keyed)
	for _, name := range keyed {
		q.addField(ru, name)
	}
	return true
}

// addExtras adds what stands in few keys. Each has a number of its own, and is written only
// if it is there.
func (q *request) addExtras(scheme, host, path string) {
	r, u := q.r, q.r.URL
	// A program may ask one server for the site of another. What a proxy sends on is for the
	// site that its client named, at whichever of the servers is nearest.
	if to := normalHost(u.Host, scheme); to != "" && to != host && !received(r) {
		q.add(1, to)
	}
	// Handlers see the target as it was sent too, and a mounted one nothing else that
	// tells it apart from the same handler under another prefix.
	if sent, _, _ := strings.Cut(r.RequestURI, "?"); sent != "" && sent != path {
		q.add(2, sent)
	}
	if r.TLS != nil && u.Scheme != "" {
		q.add(3)
	}
	if u.User != nil {
		q.add(4, u.User.String())
	}
	if q.credentials {
		q.add(5) // an answer to somebody is not for anybody, nor the other way round
	}
	if q.identity != "" {
		q.add(6, q.identity)
	}
}

// addField adds a field of the request.
func (q *request) addField(ru *rules, name string) {
	values := q.r.Header[name]
	if name == "Forwarded" && !slices.Contains(ru.fields, name) {
		values = slices.Clone(values)
		for i := range values {
			values[i] = forwardedSite(values[i])
		}
		if !slices.ContainsFunc(values, func(site string) bool { return strings.Trim(site, ",;") != "" }) {
			return
		}
	}
	q.add(7, slices.Concat([]string{name}, values)...)
}

func (q *request) add(number byte, parts ...string) {
	q.plain = false
	q.base = appendStrings(append(q.base, number), parts)
}

// key returns what requests have in common that may share an answer whose Vary named
// these fields. It has at most 200 bytes. Its beginning is for people: what is in the key
// beside the target stands there as a digest, and nobody's credentials are shown to those
// who see the names of keys.
func (q *request) key(vary []string) string {
	if q.plain && len(vary) == 0 {
		return q.target
	}
	target := []byte(q.target[:min(len(q.target), maxTarget)])
	for i, c := range target {
		if c <= ' ' && i > len("HEAD") || c >= 0x7f {
			target[i] = '_'
		}
	}
	return string(target) + " #" + digest(q.appendFields(append(slices.Clip(q.base), 0), vary))
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

// normalHost returns a host in lower case and without the default port (RFC 9110, §4.2.3).
// A dot at its end is kept: servers may know the name without it alone.
func normalHost(host, scheme string) string {
	host = lower(host)
	port := ":80"
	if scheme == "https" {
		port = ":443"
	}
	if bare, ok := strings.CutSuffix(host, port); ok {
		host = bare
	}
	return strings.TrimSuffix(host, ":")
}

// lower changes A to Z alone: strings.ToLower makes a k of the Kelvin sign, too.
func lower(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if 'A' <= b[i] && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// isVisible says whether s is of visible ASCII characters alone, without spaces.
func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// query returns the part of the target from its question mark on.
func (ru *rules) query(u *url.URL) string {
	query := u.RawQuery
	if ru.parameters == nil && !ru.sortQuery {
		if query == "" && !u.ForceQuery {
			return ""
		}
		return "?" + query
	}
	if query = ru.parametersOf(query); query == "" {
		return ""
	}
	return "?" + query
}
