package publish

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/zip"
)

// Proxy is a module proxy that is a folder, for GOPROXY=file://…
type Proxy struct {
	Folder string // an absolute path
	// Time is when the versions were made; what it holds depends on nothing else.
	Time time.Time
}

// URL is what GOPROXY takes.
func (p *Proxy) URL() string { return "file://" + filepath.ToSlash(p.Folder) }

// Add puts a module into the proxy, as revision of the repository at root has it. Its
// zip file is the one that the go command would make from the repository.
func (p *Proxy) Add(ctx context.Context, root, revision string, m Module, version string) error {
	folder := m.Folder
	if folder == "." {
		folder = ""
	}
	name := m.Folder + "/go.mod"
	mod, err := git(ctx, root, "cat-file", "blob", revision+":"+filepath.ToSlash(filepath.Clean(name)))
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	if err := zip.CreateFromVCS(&archive, module.Version{Path: m.Path, Version: version}, root, revision, folder); err != nil {
		return fmt.Errorf("fleetcall: packing %s: %w", m.Path, err)
	}
	info, err := json.Marshal(struct {
		Version string
		Time    time.Time
	}{version, p.Time.UTC()})
	if err != nil {
		return fmt.Errorf("fleetcall: packing %s: %w", m.Path, err)
	}
	for suffix, content := range map[string][]byte{".zip": archive.Bytes(), ".mod": []byte(mod + "\n"), ".info": info} {
		if err := p.write(m.Path, version+suffix, content); err != nil {
			return err
		}
	}
	return p.write(m.Path, "list", []byte(version+"\n"))
}

func (p *Proxy) write(modulePath, name string, content []byte) error {
	file, err := p.file(modulePath, name)
	if err != nil {
		return err
	}
	return write(file, content)
}

// file is where the proxy keeps a file of a module.
func (p *Proxy) file(modulePath, name string) (string, error) {
	escaped, err := module.EscapePath(modulePath)
	if err != nil {
		return "", fmt.Errorf("fleetcall: looking into the proxy: %w", err)
	}
	return filepath.Join(p.Folder, filepath.FromSlash(escaped), "@v", name), nil
}

// sums are the lines of go.sum for a module of the proxy.
func (p *Proxy) sums(modulePath, version string) ([]string, error) {
	archive, err := p.file(modulePath, version+".zip")
	if err != nil {
		return nil, err
	}
	whole, err := dirhash.HashZip(archive, dirhash.Hash1)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: hashing %s: %w", modulePath, err)
	}
	modFile, err := p.file(modulePath, version+".mod")
	if err != nil {
		return nil, err
	}
	mod, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return os.Open(modFile) })
	if err != nil {
		return nil, fmt.Errorf("fleetcall: hashing %s: %w", modulePath, err)
	}
	return []string{
		fmt.Sprintf("%s %s %s\n", modulePath, version, whole),
		fmt.Sprintf("%s %s/go.mod %s\n", modulePath, version, mod),
	}, nil
}
