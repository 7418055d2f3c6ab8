package documents

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

type link struct {
	line   int
	target string // as it is written: a path, an anchor, or both
}

var inline = regexp.MustCompile(`\]\(([^()\s]+)\)`)

// links returns a document's links to files and headings of the repository. What is
// in code is text.
func links(d document) []link {
	var all []link
	fenced := false
	for i, line := range d.lines {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		if fenced || strings.HasPrefix(line, "    ") {
			continue
		}
		for _, found := range inline.FindAllStringSubmatch(line, -1) {
			if target := found[1]; !strings.Contains(target, "://") && !strings.HasPrefix(target, "mailto:") {
				all = append(all, link{i + 1, target})
			}
		}
	}
	return all
}

// anchors returns the names that GitHub gives to a document's headings.
func anchors(d document) []string {
	var all []string
	fenced := false
	for _, line := range d.lines {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		if fenced || !heading.MatchString(line) {
			continue
		}
		all = append(all, anchor(heading.ReplaceAllString(line, "")))
	}
	return all
}

var heading = regexp.MustCompile(`^#{1,6} `)

// anchor is a heading in lower case, with hyphens for blanks, without what is
// neither letter, digit, hyphen nor underscore.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, heading)
}

func TestEveryLinkLeadsSomewhere(t *testing.T) {
	all := documents(t)
	checked := 0
	for _, d := range all {
		for _, l := range links(d) {
			checked++
			if why := broken(t, all, d, l.target); why != "" {
				t.Errorf("%s:%d: %s", d.name, l.line, why)
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d links were found", checked)
	}
	t.Logf("%d links of %d documents", checked, len(all))
}

// broken returns why a link leads nowhere, or "".
func broken(t *testing.T, all []document, from document, target string) string {
	file, fragment, _ := strings.Cut(target, "#")
	name := from.name
	if file != "" {
		name = path.Join(path.Dir(from.name), file)
	}
	if _, err := os.Stat(filepath.Join(root(t), filepath.FromSlash(name))); err != nil {
		return "there is no " + name
	}
	if fragment == "" {
		return ""
	}
	for _, d := range all {
		if d.name == name && slices.Contains(anchors(d), fragment) {
			return ""
		}
	}
	return name + " has no heading #" + fragment
}

// The checks above find nothing where they cannot fail.
func TestLinksThatLeadNowhereAreFound(t *testing.T) {
	d := document{"docs/x.md", []string{"# A `b` c", "[a](#a-b-c) [b](y.md) [c](#d) [d](../README.md#none) [e](https://example.com)", "```", "[f](nowhere)", "```"}}
	all := append(documents(t), d)
	var found []string
	for _, l := range links(d) {
		if broken(t, all, document{"README.md", nil}, path.Join("docs", l.target)) == "" && !strings.HasPrefix(l.target, "#") {
			continue
		}
		if strings.HasPrefix(l.target, "#") && slices.Contains(anchors(d), l.target[1:]) {
			continue
		}
		found = append(found, l.target)
	}
	if want := []string{"y.md", "#d", "../README.md#none"}; !slices.Equal(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
}
