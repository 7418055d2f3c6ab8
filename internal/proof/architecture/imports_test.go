package architecture

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A rule forbids some packages to be imported, by the files that are no tests.
type rule struct {
	of, but []string // the packages whose imports are looked at, and those left out
	never   []string // what they must not import
	because string
}

var rules = []rule{
	{
		of: []string{"cmd/...", "api/...", "internal/...", "deploy/..."}, but: []string{"internal/proof/...", "internal/rig/..."},
		never:   []string{"internal/proof/...", "internal/rig/..."},
		because: "what proves the program, and what tests stand on, are no part of the program: move what it needs into a package of internal/",
	},
	{
		of: []string{"internal/rig/..."}, never: []string{"internal/proof/...", "api/...", "coalesce/..."},
		because: "the servers of tests stand below all that is tested with them",
	},
	{
		of: []string{"cmd/...", "api/...", "internal/...", "deploy/...", "coalesce/..."}, but: []string{"internal/proof/...", "internal/rig/...", "coalesce/coalescetest/..."},
		never: []string{
			"testing/...", "net/http/httptest", "go.uber.org/goleak/...", "pgregory.net/rapid/...", "github.com/stretchr/testify/...",
			"github.com/chromedp/...", "github.com/Shopify/toxiproxy/...", "github.com/creack/pty/...", "github.com/getkin/kin-openapi/...",
		},
		because: "a library for tests does not belong into what users run",
	},
	{
		of: []string{"cmd/...", "api/...", "internal/...", "deploy/...", "coalesce/..."}, but: []string{"internal/fleet", "internal/proof/...", "internal/rig/..."},
		never:   []string{"github.com/alicebob/miniredis/..."},
		because: "only internal/fleet, which runs a fleet where no Redis is installed, may stand on an embedded one",
	},
	{
		of: []string{"api/..."}, never: []string{"coalesce/distributed/...", "github.com/redis/...", "github.com/jackc/pgx/...", "modernc.org/sqlite/..."},
		because: "api answers HTTP for any coalesce.Group and any store: what they are made of is known to cmd/fleetcall alone",
	},
	{
		of: []string{"coalesce/coalesceprom/...", "coalesce/coalesceotel/...", "coalesce/coalescegrpc/...", "coalesce/coalescezip/..."}, never: []string{"coalesce/internal/..."},
		because: "an adapter is a module of its own, which users may combine with another version of the library: it stands on the library's public names",
	},
	{
		of: []string{"internal/...", "deploy/..."}, never: []string{"cmd/...", "bench/...", "e2e/..."},
		because: "imports go from the program to its parts",
	},
}

// arrows has a row for every package of the library, with those of this repository
// that it may import: distributed → redislink, pubsub → protocol → wire, and none
// back. A package that does not exist yet may have its row already.
var arrows = map[string][]string{
	"coalesce":                    {"coalesce/internal/errtree"},
	"coalesce/internal/detached":  {"coalesce/internal/errtree"},
	"coalesce/internal/errtree":   {},
	"coalesce/internal/heat":      {},
	"coalesce/internal/timers":    {},
	"coalesce/internal/workers":   {},
	"coalesce/internal/lost":      {"coalesce"},
	"coalesce/internal/outcomes":  {"coalesce", "coalesce/internal/lost"},
	"coalesce/internal/wire":      {"coalesce"},
	"coalesce/internal/protocol":  {"coalesce/internal/wire"},
	"coalesce/internal/redislink": {"coalesce", "coalesce/internal/protocol", "coalesce/internal/detached", "coalesce/internal/timers"},
	"coalesce/internal/pubsub":    {"coalesce/internal/wire"},
	"coalesce/local":              {"coalesce", "coalesce/internal/detached", "coalesce/internal/errtree", "coalesce/internal/lost", "coalesce/internal/outcomes"},
	"coalesce/distributed":        {"coalesce", "coalesce/local", "coalesce/internal/..."},
	"coalesce/coalescehttp":       {"coalesce", "coalesce/internal/detached"},
	"coalesce/shadow":             {"coalesce", "coalesce/internal/protocol"},
	"coalesce/coalescetest":       {"coalesce", "coalesce/local", "coalesce/internal/detached", "coalesce/internal/errtree", "coalesce/internal/lost", "coalesce/internal/outcomes"},
	"coalesce/coalesceprom":       {"coalesce", "coalesce/local", "coalesce/distributed", "coalesce/shadow"},
	"coalesce/coalesceotel":       {"coalesce", "coalesce/local", "coalesce/distributed"},
	"coalesce/coalescegrpc":       {"coalesce"},
	"coalesce/coalescezip":        {"coalesce"},
}

// users are the packages that may import coalesce/distributed, besides programs:
// the adapters, which take its events, the proof, and what the examples' tests wait by.
var users = []string{"coalesce/coalesceprom", "coalesce/coalesceotel", "internal/proof/...", "examples/internal/together"}

// known are the imports that break a rule today. It must become empty.
var known = map[string]string{}

// A violation is an import that breaks a rule, and the sentence that says so.
type violation struct{ what, sentence string }

func violations(packages []goPackage) []violation {
	var found []violation
	report := func(p goPackage, imported, because string) {
		what := fmt.Sprintf("%s imports %s", short(p.ImportPath), short(imported))
		found = append(found, violation{what, what + ", but " + because + "."})
	}
	for _, p := range packages {
		name := short(p.ImportPath)
		for _, r := range rules {
			if !matches(name, r.of...) || matches(name, r.but...) {
				continue
			}
			for _, imported := range p.Imports {
				if matches(short(imported), r.never...) {
					report(p, imported, r.because)
				}
			}
		}
		distributed := slices.Contains(p.Imports, module+"/coalesce/distributed")
		if distributed && p.Name != "main" && !matches(name, users...) {
			report(p, module+"/coalesce/distributed", "only programs and tests choose a tier; all else takes a coalesce.Group")
		}
		if !matches(name, "coalesce/...") || matches(name, "coalesce/tests/...") {
			continue
		}
		allowed, ok := arrows[name]
		if !ok {
			found = append(found, violation{name, name + " has no row in arrows: add one that says what of this repository it may import."})
			continue
		}
		for _, imported := range p.Imports {
			if ours(imported) && !matches(short(imported), allowed...) {
				report(p, imported, fmt.Sprintf("its row in arrows allows [%s] alone: imports in the library go one way, and never to the program", strings.Join(allowed, ", ")))
			}
		}
	}
	return found
}

func TestImportsGoOneWay(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range violations(goList(t, "work")) {
		seen[v.what] = true
		if known[v.what] == "" {
			t.Error(v.sentence)
		}
	}
	for what := range known {
		if !seen[what] {
			t.Errorf("%s no more: remove it from known.", what)
		}
	}
}

// The rules are worth something only if each of them is broken by an import that
// it is meant to forbid.
func TestEveryRuleOfImportsCanBeBroken(t *testing.T) {
	for _, c := range []struct{ of, imported, because string }{
		{"internal/load", module + "/internal/rig/redisrig", "no part of the program"},
		{"cmd/fleetcall", module + "/internal/proof/history", "no part of the program"},
		{"internal/rig/redisrig", module + "/coalesce/distributed", "below all that is tested"},
		{"internal/load", "net/http/httptest", "library for tests"},
		{"coalesce/local", "testing", "library for tests"},
		{"api", "github.com/alicebob/miniredis/v2", "embedded one"},
		{"api", module + "/coalesce/distributed", "any coalesce.Group and any store"},
		{"api", "github.com/redis/go-redis/v9", "any coalesce.Group and any store"},
		{"api", "github.com/jackc/pgx/v5/pgxpool", "any coalesce.Group and any store"},
		{"coalesce/coalesceprom", module + "/coalesce/internal/wire", "public names"},
		{"internal/load", module + "/cmd/fleetcall", "to its parts"},
		{"internal/load", module + "/coalesce/distributed", "only programs and tests choose a tier"},
		{"coalesce/internal/wire", module + "/coalesce/internal/protocol", "one way"},
		{"coalesce/internal/protocol", module + "/coalesce/distributed", "one way"},
		{"coalesce/distributed", module + "/internal/process", "never to the program"},
		{"coalesce/new", "fmt", "has no row in arrows"},
	} {
		p := goPackage{ImportPath: module + "/" + c.of, Name: "x", Imports: []string{c.imported}}
		found := violations([]goPackage{p})
		if !slices.ContainsFunc(found, func(v violation) bool { return strings.Contains(v.sentence, c.because) }) {
			t.Errorf("%s may import %s: %v", c.of, c.imported, found)
		}
	}
	fine := goPackage{ImportPath: module + "/cmd/fleetcall", Name: "main", Imports: []string{"fmt", module + "/api", module + "/coalesce/distributed"}}
	if found := violations([]goPackage{fine}); len(found) != 0 {
		t.Errorf("a program may not import its parts: %v", found)
	}
}
