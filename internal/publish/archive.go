package publish

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// sbomTool writes the SBOM of a binary in CycloneDX's format.
const sbomTool = "github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0"

// pack makes an archive of files. It depends on their content and the date alone: not
// on the time, nor on who packs them.
func pack(name string, date time.Time, files []string) error {
	var packed bytes.Buffer
	compressed := gzip.NewWriter(&packed)
	archive := tar.NewWriter(compressed)
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("fleetcall: packing %s: %w", filepath.Base(name), err)
		}
		header := &tar.Header{Name: filepath.Base(file), Mode: 0o644, Size: int64(len(content)), ModTime: date, Format: tar.FormatUSTAR}
		if header.Name == "fleetcall" {
			header.Mode = 0o755
		}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("fleetcall: packing %s: %w", filepath.Base(name), err)
		}
		if _, err := archive.Write(content); err != nil {
			return fmt.Errorf("fleetcall: packing %s: %w", filepath.Base(name), err)
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("fleetcall: packing %s: %w", filepath.Base(name), err)
	}
	if err := compressed.Close(); err != nil {
		return fmt.Errorf("fleetcall: packing %s: %w", filepath.Base(name), err)
	}
	return write(name, packed.Bytes())
}

// describe writes the SBOM of a binary: the modules that are compiled in, with their
// versions and hashes. It names no time and no number of its own, so that the same
// binary has the same one.
func describe(ctx context.Context, binary, name, version string) error {
	cmd := exec.CommandContext(ctx, "go", "run", sbomTool, "bin", "-json", "-std", "-noserial", "-notimestamp",
		"-version", version, "-output", name, binary)
	cmd.Dir = filepath.Dir(binary) // outside of the workspace
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	_, err := output(cmd)
	return err
}

// debian makes the Debian package of a binary, by the tag's own command and at the tag's
// time.
func (b *build) debian(ctx context.Context, p Platform, binary string) error {
	root := filepath.Join(b.work, "tree")
	cmd := exec.CommandContext(ctx, "go", "run", ".", "-root", root, "-version", b.Version, "-arch", p.Arch, "-binary", binary, "-out", b.made)
	cmd.Dir = filepath.Join(root, "deploy", "debian")
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", fmt.Sprintf("SOURCE_DATE_EPOCH=%d", b.tagged.Unix()))
	_, err := output(cmd)
	return err
}

// checksums writes SHA256SUMS for the files of a folder, as sha256sum -c reads it.
func checksums(folder string) error {
	files, err := os.ReadDir(folder) // in order of their names
	if err != nil {
		return fmt.Errorf("fleetcall: summing up the release: %w", err)
	}
	var sums strings.Builder
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(folder, file.Name()))
		if err != nil {
			return fmt.Errorf("fleetcall: summing up the release: %w", err)
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content), file.Name())
	}
	return write(filepath.Join(folder, "SHA256SUMS"), []byte(sums.String()))
}
