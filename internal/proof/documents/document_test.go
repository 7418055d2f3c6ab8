package documents

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxReadme is how many lines the README may have: what needs more has a page of its
// own.
const maxReadme = 150

// root returns the repository's folder: the one that has go.work.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no folder above has a go.work")
		}
		dir = filepath.Dir(dir)
	}
}

// document is a Markdown file.
type document struct {
	name  string // its path from the repository's root, with slashes
	lines []string
}

// documents returns every Markdown file of the repository.
func documents(t *testing.T) []document {
	t.Helper()
	var all []document
	err := filepath.WalkDir(root(t), func(file string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if strings.HasPrefix(name, ".") && file != root(t) || name == "testdata" || name == "bin" || name == "dist" {
				return filepath.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".md" {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root(t), file)
		all = append(all, document{filepath.ToSlash(rel), strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found %d documents; where are the others?", len(all))
	}
	return all
}

func find(t *testing.T, name string) document {
	t.Helper()
	for _, d := range documents(t) {
		if d.name == name {
			return d
		}
	}
	t.Fatalf("there is no %s", name)
	return document{}
}

func TestTheReadmeIsShort(t *testing.T) {
	if n := len(find(t, "README.md").lines); n > maxReadme {
		t.Errorf("README.md has %d lines, and may have %d: move what is not for everybody to a page of docs/", n, maxReadme)
	}
}

// A reader who knows the index knows every page.
func TestTheIndexLinksEveryDocument(t *testing.T) {
	const index = "docs/README.md"
	linked := []string{index}
	for _, l := range links(find(t, index)) {
		file, _, _ := strings.Cut(l.target, "#")
		linked = append(linked, path.Join("docs", file))
	}
	for _, d := range documents(t) {
		if dir := path.Dir(d.name); dir != "." && dir != "docs" && !strings.HasPrefix(dir, "examples/") {
			continue
		}
		if !slices.Contains(linked, d.name) {
			t.Errorf("%s has no row for %s", index, d.name)
		}
	}
	if !slices.ContainsFunc(links(find(t, "README.md")), func(l link) bool { return l.target == index }) {
		t.Errorf("README.md does not link %s", index)
	}
}

// What is copied out of a document has to name the packages that there are.
func TestEveryPackageThatADocumentNamesExists(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "work")
	cmd.Dir = root(t)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	checked := 0
	for _, d := range documents(t) {
		for i, line := range d.lines {
			for _, named := range packagesOf(t).FindAllString(line, -1) {
				checked++
				if !slices.ContainsFunc(packages, func(p string) bool { return p == named || strings.HasPrefix(p, named+"/") }) {
					t.Errorf("%s:%d: there is no package %s", d.name, i+1, named)
				}
			}
		}
	}
	if checked < 5 {
		t.Errorf("only %d packages were found", checked)
	}
}

// packagesOf finds the paths of this repository's packages, whatever it is called.
func packagesOf(t *testing.T) *regexp.Regexp {
	t.Helper()
	first, _, _ := strings.Cut(string(must(os.ReadFile(filepath.Join(root(t), "go.mod")))), "\n")
	return regexp.MustCompile(`\b` + regexp.QuoteMeta(strings.TrimPrefix(first, "module ")) + `(/[a-z0-9]+)*`)
}

// The layout has a line for every package that is not below another one's line, and
// none for a folder that is gone.
func TestTheLayoutHasTheFoldersThatThereAre(t *testing.T) {
	var rows []string
	for _, line := range find(t, "docs/development.md").lines {
		if row := layoutRow.FindStringSubmatch(line); row != nil {
			rows = append(rows, row[1])
			if _, err := os.Stat(filepath.Join(root(t), filepath.FromSlash(row[1]))); err != nil {
				t.Errorf("docs/development.md has a line for %s, which is not there", row[1])
			}
		}
	}
	if len(rows) < 20 {
		t.Fatalf("the layout has %d lines", len(rows))
	}
	for _, dir := range []string{".", "coalesce", "internal", "internal/proof"} {
		for _, entry := range must(os.ReadDir(filepath.Join(root(t), dir))) {
			name := path.Join(dir, entry.Name()) + "/"
			sources := must(filepath.Glob(filepath.Join(root(t), name, "*.go")))
			covered := slices.ContainsFunc(rows, func(row string) bool { return strings.HasPrefix(row, name) })
			if entry.IsDir() && len(sources) > 0 && !covered {
				t.Errorf("docs/development.md has no line for %s", name)
			}
		}
	}
}

var layoutRow = regexp.MustCompile(`^    ([a-z0-9]+(?:/[a-z0-9]+)*/) `)
