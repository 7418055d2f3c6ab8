package coalescehttp

import "strings"

// cacheControl is what a Cache-Control field says (RFC 9111, §5.2), as far as it matters
// here. Directives that are not known are ignored.
type cacheControl struct {
	noStore, noCache, private, public, mustRevalidate bool
	maxAge, sharedMaxAge                              lifetime
}

// lifetime is for how long an answer is fresh.
type lifetime uint8

const (
	unsaid lifetime = iota
	zero            // or one that cannot be read, which counts as over (RFC 9111, §4.2.1)
	positive
)

// parseCacheControl reads all values of the field. ok is false when they cannot be read: a
// missing comma or quotation mark may hide what forbids to share.
func parseCacheControl(values []string) (c cacheControl, ok bool) {
	for _, value := range values {
		for _, part := range splitOutsideQuotes(value, ',') {
			if part = trimSpace(part); part != "" && !c.read(part) {
				return cacheControl{}, false
			}
		}
	}
	return c, true
}

// read reads one directive.
func (c *cacheControl) read(directive string) bool {
	name, argument, has := strings.Cut(directive, "=")
	if !isToken(name) || has && !isToken(argument) && !isQuoted(argument) {
		return false
	}
	switch lower(name) {
	case "no-store":
		c.noStore = true
	case "no-cache": // with names of fields too: the rest alone could not be sent on
		c.noCache = true
	case "private":
		c.private = true
	case "public":
		c.public = c.public || !has
	case "must-revalidate":
		c.mustRevalidate = c.mustRevalidate || !has
	case "max-age":
		c.maxAge.limit(argument)
	case "s-maxage":
		c.sharedMaxAge.limit(argument)
	}
	return true
}

// forbid adds what another field forbids. Cache-Control alone allows: what is meant for a
// cache of another kind may allow it more.
func (c *cacheControl) forbid(other cacheControl) {
	c.noStore = c.noStore || other.noStore
	c.noCache = c.noCache || other.noCache
	c.private = c.private || other.private
}

// limit takes the least of several values.
func (l *lifetime) limit(argument string) {
	seconds := strings.TrimSuffix(strings.TrimPrefix(argument, `"`), `"`)
	if *l == zero || strings.Trim(seconds, "0123456789") != "" || strings.Trim(seconds, "0") == "" {
		*l = zero
		return
	}
	*l = positive
}

// isToken says whether s is a token (RFC 9110, §5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// isQuoted says whether s is one quoted string (RFC 9110, §5.6.4).
func isQuoted(s string) bool {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return false
	}
	inner := s[1 : len(s)-1]
	for i := 0; i < len(inner); i++ {
		switch c := inner[i]; {
		case c == '"' || c < ' ' && c != '\t' || c == 0x7f:
			return false
		case c == '\\':
			if i++; i == len(inner) || inner[i] < ' ' && inner[i] != '\t' || inner[i] == 0x7f {
				return false
			}
		}
	}
	return true
}
