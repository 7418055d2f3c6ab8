package publish_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/internal/publish"
)

// workspace writes modules with what they require into a folder, and opens it.
func workspace(t *testing.T, modules map[string]string) (*publish.Workspace, error) {
	t.Helper()
	root := t.TempDir()
	work := "go 1.26.0\n"
	for folder, requires := range modules {
		work += "use ./" + folder + "\n"
		mod := "module " + strings.TrimSuffix("example.com/m/"+folder, "/.") + "\n"
		for required := range strings.FieldsSeq(requires) {
			mod += "require example.com/m/" + required + " v0.0.0\n"
		}
		if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, folder, "go.mod"), []byte(mod), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "go.work"), []byte(work), 0o644); err != nil {
		t.Fatal(err)
	}
	return publish.Open(root)
}

func TestAModuleIsPublishedBehindThoseThatItRequires(t *testing.T) {
	w, err := workspace(t, map[string]string{".": "a a/c", "a": "", "a/b": "a", "a/c": "a/b a", "examples/shop": "a", "bench": "a"})
	if err != nil {
		t.Fatal(err)
	}
	var tags []string
	for _, m := range w.Published() {
		tags = append(tags, m.Tag("v1.2.3"))
	}
	if want := []string{"a/v1.2.3", "a/b/v1.2.3", "a/c/v1.2.3", "v1.2.3"}; !slices.Equal(tags, want) {
		t.Errorf("the tags are %v, want %v", tags, want)
	}
}

func TestModulesThatCannotBePublishedAreRefused(t *testing.T) {
	for because, modules := range map[string]map[string]string{
		"in a circle":                       {".": "a", "a": "b", "b": "a"},
		"example.com/m/bench, which is not": {".": "bench", "bench": ""},
	} {
		if _, err := workspace(t, modules); err == nil || !strings.Contains(err.Error(), because) {
			t.Errorf("%v: %v, want %q", modules, err, because)
		}
	}
}
