package coalescehttp

import "strings"

// fieldClass says what a field of a request means to the rules.
type fieldClass uint8

const (
	fieldOther fieldClass = iota
	fieldKeyed            // it is part of the key
	fieldCondition
	fieldCredentials
	fieldCookie
	fieldConnection
	fieldPragma
	fieldCacheControl
)

// unmerged are the fields with which a request is not merged.
var unmerged = map[string]Reason{
	"Range":                  ReasonRange,
	"If-Range":               ReasonRange,
	"If-Match":               ReasonPrecondition,
	"If-Unmodified-Since":    ReasonPrecondition,
	"Expect":                 ReasonExpect,
	"Upgrade":                ReasonUpgrade,
	"X-Http-Method":          ReasonMethodOverride,
	"X-Http-Method-Override": ReasonMethodOverride,
	"X-Method-Override":      ReasonMethodOverride,
}

// fieldClasses are those of single names. Keyed are the fields by which servers choose an
// answer although they seldom name them in Vary: for which site or path a request was
// before a proxy rewrote it, from which origin a script asks and for which part of a page,
// and on whose behalf a proxy asks or which key a client has. A field of which an attacker
// chooses the value, and which is not part of the key, would let him choose the answers of
// others.
var fieldClasses = map[string]fieldClass{
	"Authorization":       fieldCredentials,
	"Proxy-Authorization": fieldCredentials,
	"Cookie":              fieldCookie,
	"Connection":          fieldConnection,
	"Pragma":              fieldPragma,
	"Cache-Control":       fieldCacheControl,
	"If-None-Match":       fieldCondition,
	"If-Modified-Since":   fieldCondition,

	"Origin":               fieldKeyed,
	"Early-Data":           fieldKeyed,
	"Forwarded":            fieldKeyed,
	"Front-End-Https":      fieldKeyed,
	"X-Host":               fieldKeyed,
	"X-Http-Host-Override": fieldKeyed,
	"X-Rewrite-Url":        fieldKeyed,
	"X-Url-Scheme":         fieldKeyed,

	// Scripts ask by them for a part of a page, or for its data.
	"Rsc":              fieldKeyed,
	"Turbo-Frame":      fieldKeyed,
	"X-Inertia":        fieldKeyed,
	"X-Pjax":           fieldKeyed,
	"X-Requested-With": fieldKeyed,

	// Servers that can send files by their proxy (Rack::Sendfile) are told so by them, and
	// then answer without a body.
	"X-Accel-Mapping": fieldKeyed,
	"X-Sendfile-Type": fieldKeyed,

	"User-Agent":      fieldOther, // not a user
	"X-User-Agent":    fieldOther,
	"X-Forwarded-For": fieldOther, // each client's own: with it in the key, nothing would be merged
	// A balancer's name, and the addresses that one balancer hands to the next.
	"X-Forwarded-Server":       fieldOther,
	"X-Original-Forwarded-For": fieldOther,
}

// keyedPrefixes start the names of more fields that are part of the key.
var keyedPrefixes = []string{
	"X-Forwarded-", "X-Original-",
	"Hx-", "Next-", "X-Middleware-", "X-Nextjs-",
	"Cf-Access-", "X-Amzn-Oidc-",
}

// asker are words in the names of fields that tell who asks, or on whose behalf: X-Api-Key,
// Private-Token, X-Auth-Request-Email. There are too many such fields to know each. One that
// is part of the key without need costs a request more; one that is not may give somebody
// the answer of another.
var asker = map[string]bool{
	"Account": true, "Apikey": true, "Auth": true, "Authenticated": true, "Authentication": true, "Authorization": true,
	"Credential": true, "Credentials": true, "Csrf": true, "Csrftoken": true, "Customer": true, "Email": true, "Identity": true,
	"Jwt": true, "Key": true, "Org": true, "Organization": true, "Password": true, "Principal": true, "Role": true, "Roles": true,
	"Secret": true, "Session": true, "Sessionid": true, "Signature": true, "Subject": true, "Tenant": true, "Token": true,
	"Uid": true, "User": true, "Userid": true, "Username": true, "Xsrf": true,
}

// classify takes a name in canonical form.
func classify(name string) (fieldClass, Reason) {
	if reason := unmerged[name]; reason != "" {
		return fieldOther, reason
	}
	if class, known := fieldClasses[name]; known {
		return class, ""
	}
	for _, prefix := range keyedPrefixes {
		if strings.HasPrefix(name, prefix) {
			return fieldKeyed, ""
		}
	}
	for word := range strings.SplitSeq(name, "-") {
		if asker[word] {
			return fieldKeyed, ""
		}
	}
	return fieldOther, ""
}

// forwardedSite returns what a Forwarded field (RFC 7239) says of the site that was asked,
// without the addresses of those who asked: they are each client's own. A value that cannot
// be read is returned as it is.
func forwardedSite(value string) string {
	var site []string
	for _, element := range splitOutsideQuotes(value, ',') {
		for _, pair := range splitOutsideQuotes(element, ';') {
			pair = trimSpace(pair)
			name, argument, ok := strings.Cut(pair, "=")
			if strings.EqualFold(name, "for") || strings.EqualFold(name, "by") {
				// Servers that do not heed quotes would find more in it.
				if !ok || strings.ContainsAny(argument, `=;,\`) {
					return value
				}
				continue
			}
			if pair != "" {
				site = append(site, pair)
			}
		}
		site = append(site, ",")
	}
	return strings.Join(site, ";")
}

// splitOutsideQuotes splits at separators that are not in a quoted string (RFC 9110,
// §5.6.4). A string that does not end has no separators.
func splitOutsideQuotes(s string, separator byte) []string {
	var parts []string
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == separator && !quoted:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}
