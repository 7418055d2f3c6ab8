package publish

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
)

// Stamp gives the modules of the tree a version: their go.mod files require each
// other at it, go.sum has the hashes of what is required, and go.work keeps the tree
// itself in its place. The published modules are put into the proxy. The tree has to
// be a git repository's; its changes are added to the index and not committed.
func Stamp(ctx context.Context, root, version string, proxy *Proxy) error {
	w, err := Open(root)
	if err != nil {
		return err
	}
	if err := w.stampWork(version); err != nil {
		return err
	}
	for _, m := range w.Modules { // a module's hash is known before another needs it
		if err := w.stampMod(m, version); err != nil {
			return err
		}
		if err := w.stampSum(m, version, proxy); err != nil {
			return err
		}
		if !m.Published {
			continue
		}
		if _, err := git(ctx, root, "add", "--all"); err != nil {
			return err
		}
		tree, err := git(ctx, root, "write-tree")
		if err != nil {
			return err
		}
		if err := proxy.Add(ctx, root, tree, m, version); err != nil {
			return err
		}
	}
	_, err = git(ctx, root, "add", "--all")
	return err
}

// stampWork lets the replace lines name the new version.
func (w *Workspace) stampWork(version string) error {
	work, err := readWork(w.Root)
	if err != nil {
		return err
	}
	replaced := map[string]bool{}
	for _, r := range work.Replace {
		if w.owns(r.Old.Path) && r.Old.Version != "" {
			// In its place, so that the lines keep their block and its comment.
			r.Syntax.Token[slices.Index(r.Syntax.Token, r.Old.Version)] = version
			replaced[r.Old.Path] = true
		}
	}
	for _, m := range w.requiredBySome() {
		if replaced[m.Path] {
			continue
		}
		if err := work.AddReplace(m.Path, version, "./"+strings.TrimPrefix(m.Folder, "."), ""); err != nil {
			return fmt.Errorf("fleetcall: writing go.work: %w", err)
		}
	}
	return write(w.file(".", "go.work"), modfile.Format(work.Syntax))
}

func (w *Workspace) stampMod(m Module, version string) error {
	name := w.file(m.Folder, "go.mod")
	file, err := readMod(name)
	if err != nil {
		return err
	}
	for _, required := range m.Requires {
		if err := file.AddRequire(required, version); err != nil {
			return fmt.Errorf("fleetcall: writing go.mod: %w", err)
		}
	}
	return write(name, modfile.Format(file.Syntax))
}

func (w *Workspace) stampSum(m Module, version string, proxy *Proxy) error {
	name := w.file(m.Folder, "go.sum")
	content, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("fleetcall: reading go.sum: %w", err)
	}
	lines := strings.SplitAfter(string(w.withoutOwn(content)), "\n")
	lines = slices.DeleteFunc(lines, func(line string) bool { return line == "" })
	for _, required := range m.Requires {
		sums, err := proxy.sums(required, version)
		if err != nil {
			return err
		}
		lines = append(lines, sums...)
	}
	if len(lines) == 0 {
		return nil
	}
	sortSums(lines)
	return write(name, []byte(strings.Join(lines, "")))
}

// withoutOwn drops the lines of the workspace's own modules from a go.sum.
func (w *Workspace) withoutOwn(sum []byte) []byte {
	var others strings.Builder
	for line := range strings.Lines(string(sum)) {
		if own, _, _ := strings.Cut(line, " "); !w.owns(own) {
			others.WriteString(line)
		}
	}
	return []byte(others.String())
}

// sortSums sorts the lines of a go.sum as the go command does.
func sortSums(lines []string) {
	key := func(line string) module.Version {
		fields := strings.Fields(line + " . .") // at least two
		return module.Version{Path: fields[0], Version: fields[1]}
	}
	byKey := map[module.Version]string{}
	keys := make([]module.Version, 0, len(lines))
	for _, line := range lines {
		byKey[key(line)] = line
		keys = append(keys, key(line))
	}
	module.Sort(keys)
	for i, k := range keys {
		lines[i] = byKey[k]
	}
}

// write writes a file that others may read.
func write(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("fleetcall: writing %s: %w", filepath.Base(name), err)
	}
	if err := os.WriteFile(name, content, 0o644); err != nil {
		return fmt.Errorf("fleetcall: writing %s: %w", filepath.Base(name), err)
	}
	return nil
}
