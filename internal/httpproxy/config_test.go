package httpproxy

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAFileSaysWhatARuleDoes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "proxy.yaml")
	text := `
# The first rule that matches holds.
rules:
  - path: /products/*
    query_parameters: [page, sort]
    sort_query: true
    fields: [Accept-Language, X-Tenant]
    identity: {field: X-User}
    body_limit: 2MiB
    body_timeout: 1s
    upstream_timeout: 10s
    flight_timeout: 5s
    remember: 1m
  - path: /account/**
    coalesce: false
  - path: /
    query_parameters: []
    identity:
      cookie: session
    cookies: true
    body_limit: 1000
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadRules(file)
	if err != nil {
		t.Fatal(err)
	}
	want := []Rule{
		{Path: "/products/*", QueryParameters: []string{"page", "sort"}, SortQuery: true, Fields: []string{"Accept-Language", "X-Tenant"}, IdentityField: "X-User",
			BodyLimit: 2 << 20, BodyTimeout: time.Second, UpstreamTimeout: 10 * time.Second, FlightTimeout: 5 * time.Second, Remember: time.Minute},
		{Path: "/account/**", Alone: true},
		{Path: "/", QueryParameters: []string{}, IdentityCookie: "session", Cookies: true, BodyLimit: 1000},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if _, err := ReadRules(file + "x"); err == nil || !strings.Contains(err.Error(), "proxy.yamlx") {
		t.Errorf("a file that there is not: %v", err)
	}
}

func TestAFileWithoutRulesHasNone(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "rules:\n", "rules: []\n"} {
		if rules, err := parseRules("proxy.yaml", []byte(text)); err != nil || len(rules) != 0 {
			t.Errorf("%q: %v, %v", text, rules, err)
		}
	}
}

// Each mistake is refused, with its line and a way out.
func TestMistakesInAFileAreNamedWithTheirLines(t *testing.T) {
	for text, want := range map[string]string{
		"rules:\n- path: /a\n  coalese: false\n":                            `proxy.yaml:3: there is no key "coalese"; did you mean coalesce? The file has rules;`,
		"rule:\n- path: /a\n":                                               `proxy.yaml:1: there is no key "rule"; did you mean rules?`,
		"rules:\n- path: /a\n  nonsense: 1\n":                               "a rule has path, coalesce, query_parameters,",
		"rules:\n- path: /a\n  identity: {header: X-User}\n":                `proxy.yaml:3: there is no key "header"`,
		"rules:\n- path: /a\n  path: /b\n":                                  "proxy.yaml:3: ",
		"rules:\n- path: a\n":                                               `proxy.yaml:2: rule 1: path: "a" does not begin with /`,
		"rules:\n- coalesce: false\n":                                       `proxy.yaml:2: rule 1: path: "" does not begin with /`,
		"rules:\n- path: /\n- path: /a/**/b\n":                              `proxy.yaml:3: rule 2: path: "/a/**/b" has a *, ? or # that is no segment's place-holder; say it as in /products/*`,
		"rules:\n- path: /a*\n":                                             `proxy.yaml:2: rule 1: path: "/a*"`,
		"rules:\n- path: /a?x=1\n":                                          `proxy.yaml:2: rule 1: path: "/a?x=1"`,
		"rules:\n- path: /a//b\n":                                           "has an empty segment",
		"rules:\n- path: /a\n  coalesce: maybe\n":                           `proxy.yaml:3: "maybe" is not true or false`,
		"rules:\n- path: /a\n  flight_timeout: 30\n":                        `proxy.yaml:3: "30" is no time such as 500ms or 30s`,
		"rules:\n- path: /a\n  flight_timeout: soon\n":                      `proxy.yaml:3: "soon" is no time`,
		"rules:\n- path: /a\n  remember: 0s\n":                              "remember: 0s is less than 1ms",
		"rules:\n- path: /a\n  body_limit: 1GB\n":                           `proxy.yaml:3: "1GB" is no number of bytes`,
		"rules:\n- path: /a\n  body_limit: 0\n":                             "to share nothing, say coalesce: false",
		"rules:\n- path: /a\n  fields: [\"X Y\"]\n":                         `proxy.yaml:3: rule 1: fields: "X Y" is no name of a header field`,
		"rules:\n- path: /a\n  fields: X-A\n":                               "proxy.yaml:3: ",
		"rules:\n- path: /a\n  identity: {field: X-A, cookie: b}\n":         "proxy.yaml:3: rule 1: identity: give either",
		"rules:\n- path: /a\n  identity: {}\n":                              "identity: give either",
		"rules:\n- path: /a\n  coalesce: false\n  query_parameters: [id]\n": "proxy.yaml:4: rule 1: query_parameters: it has no effect",
		"rules:\n- path: /a\n  coalesce: false\n  cookies: true\n":          "cookies: it has no effect",
		"rules:\n- path: /a\n\tcoalesce: false\n":                           "proxy.yaml:3: ",
		"rules: [\n": "proxy.yaml:",
		"rules:\n- path: /a\n---\nrules:\n- path: /b\n":                                                                  "proxy.yaml:3: a second document",
		"rules:\n- path: /a\n  identity: &i {cookie: s}\n- path: /b\n  identity: *i\n- path: /c\n  identity: {<<: *i}\n": "",
		"- path: /a\n":                                                   "proxy.yaml:1: here is a list where a mapping of keys to values must be",
		"rules:\n  path: /a\n":                                           "proxy.yaml:2: here is a mapping of keys to values where a list must be",
		"rules:\n- path: /a\n- path: /a\n":                               `proxy.yaml:3: rule 2: path: "/a" never holds`,
		"rules:\n- path: /**\n- path: /a\n":                              `rule 1 for "/**" matches all of it`,
		"rules:\n- path: /a/*\n- path: /a/b\n":                           `rule 2: path: "/a/b" never holds`,
		"rules:\n- path: /a/*\n- path: /a/**\n- path: /*\n- path: /**\n": "",
	} {
		rules, err := parseRules("proxy.yaml", []byte(text))
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, %v\nwant %s", text, rules, err, want)
		}
	}
}

func FuzzRulesAreReadOrRefused(f *testing.F) {
	f.Add("rules:\n- path: /a/*\n  identity: {field: X-User}\n  body_limit: 1MiB\n")
	f.Add("rules: [{path: /, coalesce: false}]")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := parseRules("proxy.yaml", []byte(text))
		for _, rule := range rules {
			if err == nil && checkPath(rule.Path) != nil {
				t.Errorf("%q is read as a rule for %q", text, rule.Path)
			}
		}
	})
}
