package publish

import (
	"bytes"
	"context"
	"fmt"
	"go/format"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
)

// Rename makes newPath the module path of the tree at root: in go.mod files, imports,
// documents and wherever else the present path stands. It refuses a path that the go
// command would not take, and a tree with changes that are not committed.
func Rename(ctx context.Context, root, newPath string) error {
	if err := checkModulePath(newPath); err != nil {
		return err
	}
	w, err := Open(root)
	if err != nil {
		return err
	}
	if newPath == w.Path() {
		return fmt.Errorf("fleetcall: the module path is %s already", newPath)
	}
	if err := clean(ctx, root); err != nil {
		return err
	}
	files, err := Files(ctx, root)
	if err != nil {
		return err
	}
	for _, name := range files {
		if err := w.rename(filepath.Join(root, name), newPath); err != nil {
			return err
		}
	}
	return nil
}

func checkModulePath(newPath string) error {
	if newPath == "" {
		return fmt.Errorf("fleetcall: a module path is needed: make module-path MODULE=example.com/team/fleetcall")
	}
	if err := module.CheckPath(newPath); err != nil {
		return fmt.Errorf("fleetcall: the go command does not take this module path; it looks like example.com/team/fleetcall: %w", err)
	}
	if _, major, _ := module.SplitPathVersion(newPath); major != "" {
		return fmt.Errorf("fleetcall: the module path %s ends in a major version; leave out %s, releases are below v2", newPath, major)
	}
	return nil
}

// rename rewrites one file.
func (w *Workspace) rename(name, newPath string) error {
	content, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("fleetcall: renaming the module: %w", err)
	}
	if bytes.IndexByte(content, 0) >= 0 {
		return nil // not a text
	}
	renamed := content
	if filepath.Base(name) == "go.sum" {
		// A hash is of a file that has the path in it. The next release has new ones.
		renamed = w.withoutOwn(renamed)
	}
	// A path that only begins alike, such as one that ends in "-go", is another's.
	mention := regexp.MustCompile(regexp.QuoteMeta(w.Path()) + `($|[^\w-])`)
	renamed = mention.ReplaceAll(renamed, []byte(strings.ReplaceAll(newPath, "$", "$$")+"${1}"))
	if bytes.Equal(renamed, content) {
		return nil
	}
	if renamed, err = sorted(name, renamed); err != nil {
		return fmt.Errorf("fleetcall: renaming the module: %w", err)
	}
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("fleetcall: renaming the module: %w", err)
	}
	if err := os.WriteFile(name, renamed, info.Mode()); err != nil {
		return fmt.Errorf("fleetcall: renaming the module: %w", err)
	}
	return nil
}

// sorted puts imports and requirements into their order, which a new path may change.
func sorted(name string, content []byte) ([]byte, error) {
	switch {
	case strings.HasSuffix(name, ".go"):
		return format.Source(content)
	case filepath.Base(name) == "go.mod":
		file, err := modfile.Parse(name, content, nil)
		if err != nil {
			return nil, err
		}
		file.SortBlocks()
		return modfile.Format(file.Syntax), nil
	case filepath.Base(name) == "go.work":
		file, err := modfile.ParseWork(name, content, nil)
		if err != nil {
			return nil, err
		}
		file.SortBlocks()
		return modfile.Format(file.Syntax), nil
	}
	return content, nil
}
