package coalescehttp

import (
	"net/url"
	"slices"
	"strings"
)

// parametersOf returns a query as WithQueryParameters and WithSortedQuery want it: some of
// its parameters, each as it was sent, in their order or sorted.
//
// Servers disagree on where a parameter ends and what its name is. What one of them may
// take for a chosen parameter must not be left out, or somebody could have an answer made
// for a value that is not in the key.
func (ru *rules) parametersOf(query string) string {
	if query == "" || strings.Contains(query, ";") {
		return query // to some servers, a semicolon ends a parameter
	}
	var parameters []parameter
	for sent := range strings.SplitSeq(query, "&") {
		p := newParameter(sent)
		if ru.parameters == nil || !p.plain || slices.Contains(ru.parameters, p.name) {
			parameters = append(parameters, p)
		}
	}
	if ru.sortQuery && !slices.ContainsFunc(parameters, func(p parameter) bool { return !p.plain }) {
		// Those of one name keep their order, which servers go by.
		slices.SortStableFunc(parameters, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	}
	var b strings.Builder
	for i, p := range parameters {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p.sent)
	}
	return b.String()
}

// parameter is one of a query.
type parameter struct {
	sent  string
	name  string // decoded, in lower case: some servers ignore case
	plain bool   // every server takes it for this name
}

func newParameter(sent string) parameter {
	encoded, _, _ := strings.Cut(sent, "=")
	name, err := url.QueryUnescape(encoded)
	if err != nil {
		return parameter{sent: sent}
	}
	return parameter{sent, lower(name), isPlainName(name)}
}

// isPlainName says whether a name has letters, digits, - and _ alone. PHP, for one, takes
// id[0], id%00x and %20id for id, and a.b for a_b.
func isPlainName(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return name != ""
}
