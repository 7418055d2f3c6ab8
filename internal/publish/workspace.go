// Package publish is how the repository's modules come to be something that go get
// can take: it publishes them under another path, makes releases, and lays the tree
// out as a module proxy in the file system. The modules are those of go.work.
//
// Nothing in it pushes anything.
package publish

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// kept are the folders whose modules, and those below, serve work in the repository:
// nobody gets them, so a release does not tag them.
var kept = []string{"bench", "coalesce/tests", "deploy/debian", "deploy/verify", "examples"}

// Module is one module of the workspace.
type Module struct {
	Path   string
	Folder string // with slashes, relative to the workspace's root; "." is the root
	// Published says whether a release tags it.
	Published bool
	// Requires are the paths of those modules of the workspace that its go.mod names.
	Requires []string
}

// Tag is the tag that publishes the module at version: in a repository of several
// modules, the go command looks for the module's folder in front of the version.
func (m Module) Tag(version string) string {
	if m.Folder == "." {
		return version
	}
	return m.Folder + "/" + version
}

// Workspace is the repository's modules. One stands behind all that it requires.
type Workspace struct {
	Root    string // an absolute path
	Modules []Module
}

// Open reads go.work and each go.mod that it uses. It fails when one cannot be read,
// when a published module requires one that is not, and when modules require each
// other.
func Open(root string) (*Workspace, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: opening the workspace: %w", err)
	}
	work, err := readWork(root)
	if err != nil {
		return nil, err
	}
	w := &Workspace{Root: root}
	files := map[string]*modfile.File{}
	for _, use := range work.Use {
		folder := path.Clean(filepath.ToSlash(use.Path))
		file, err := readMod(w.file(folder, "go.mod"))
		if err != nil {
			return nil, err
		}
		module := Module{Path: file.Module.Mod.Path, Folder: folder, Published: !isKept(folder)}
		files[module.Path] = file
		w.Modules = append(w.Modules, module)
	}
	for i := range w.Modules {
		for _, require := range files[w.Modules[i].Path].Require {
			if files[require.Mod.Path] != nil {
				w.Modules[i].Requires = append(w.Modules[i].Requires, require.Mod.Path)
			}
		}
	}
	if w.Modules, err = ordered(w.Modules); err != nil {
		return nil, err
	}
	return w, nil
}

// Path is the module path of the root, under which all others are.
func (w *Workspace) Path() string {
	for _, m := range w.Modules {
		if m.Folder == "." {
			return m.Path
		}
	}
	return ""
}

// Published are the modules that a release tags, in the order of Modules.
func (w *Workspace) Published() []Module {
	return slices.DeleteFunc(slices.Clone(w.Modules), func(m Module) bool { return !m.Published })
}

// owns says whether a module path is one of the workspace's.
func (w *Workspace) owns(modulePath string) bool {
	return slices.ContainsFunc(w.Modules, func(m Module) bool { return m.Path == modulePath })
}

// file is where a file of a module's folder is.
func (w *Workspace) file(folder, name string) string {
	return filepath.Join(w.Root, filepath.FromSlash(folder), name)
}

// ordered puts each module behind those that it requires.
func ordered(modules []Module) ([]Module, error) {
	var done []Module
	placed := func(p string) bool {
		return slices.ContainsFunc(done, func(m Module) bool { return m.Path == p })
	}
	for len(done) < len(modules) {
		before := len(done)
		for _, m := range modules {
			if !placed(m.Path) && !slices.ContainsFunc(m.Requires, func(p string) bool { return !placed(p) }) {
				done = append(done, m)
			}
		}
		if len(done) == before {
			return nil, fmt.Errorf("fleetcall: opening the workspace: its modules require each other in a circle, so none can be published first")
		}
	}
	for _, m := range done {
		for _, required := range done {
			if m.Published && !required.Published && slices.Contains(m.Requires, required.Path) {
				return nil, fmt.Errorf("fleetcall: opening the workspace: %s is published and requires %s, which is not", m.Path, required.Path)
			}
		}
	}
	return done, nil
}

func readWork(root string) (*modfile.WorkFile, error) {
	name := filepath.Join(root, "go.work")
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: opening the workspace: %w", err)
	}
	work, err := modfile.ParseWork(name, content, nil)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: opening the workspace: %w", err)
	}
	return work, nil
}

func readMod(name string) (*modfile.File, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: reading a module: %w", err)
	}
	file, err := modfile.Parse(name, content, nil)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: reading a module: %w", err)
	}
	if file.Module == nil {
		return nil, fmt.Errorf("fleetcall: reading a module: %s has no module line", name)
	}
	return file, nil
}

// requiredBySome are the paths that go.work has to replace: no proxy has them at the
// version that the tree's go.mod files name, before that version is pushed.
func (w *Workspace) requiredBySome() []Module {
	return slices.DeleteFunc(slices.Clone(w.Modules), func(m Module) bool {
		return !slices.ContainsFunc(w.Modules, func(other Module) bool { return slices.Contains(other.Requires, m.Path) })
	})
}

// isKept says whether a folder is one of kept, or in one.
func isKept(folder string) bool {
	return slices.ContainsFunc(kept, func(k string) bool { return folder == k || strings.HasPrefix(folder, k+"/") })
}
