// Command debian makes the Debian package of a release, from a binary that was built
// before. The release runs it; by hand, in the repository's root:
//
//	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) go run ./deploy/debian -version v0.2.0 -binary bin/fleetcall -out dist
//
// It is a module of its own, so that the program does not inherit what packs it. The same
// binary, version and time give the same package, to the last bit.
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
)

func main() {
	log.SetFlags(0)
	root := flag.String("root", ".", "the repository")
	version := flag.String("version", "", "as v0.2.0")
	arch := flag.String("arch", "amd64", "as GOARCH")
	binary := flag.String("binary", "", "the program")
	out := flag.String("out", "dist", "the folder for the package")
	flag.Parse()
	name, err := pack(*root, *version, *arch, *binary, *out)
	if err != nil {
		log.Fatal("fleetcall: making the Debian package: ", err)
	}
	fmt.Println(name)
}

// pack makes the package in the folder out, and returns its name. root is the
// repository's.
func pack(root, version, arch, binary, out string) (string, error) {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return "", fmt.Errorf("SOURCE_DATE_EPOCH is the release's time, in seconds since 1970: %w", err)
	}
	info := nfpm.WithDefaults(describe(root, version, arch, binary, time.Unix(seconds, 0).UTC()))
	if err := nfpm.PrepareForPackager(info, "deb"); err != nil {
		return "", err
	}
	name := filepath.Join(out, deb.Default.ConventionalFileName(info))
	file, err := os.Create(name)
	if err != nil {
		return "", err
	}
	return name, errors.Join(deb.Default.Package(info, file), file.Close())
}

// describe says what is in the package.
func describe(root, version, arch, binary string, date time.Time) *nfpm.Info {
	content := func(from, to string, mode os.FileMode, kind string) *files.Content {
		return &files.Content{
			Source: from, Destination: to, Type: kind,
			FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: mode, MTime: date},
		}
	}
	systemd, scripts := filepath.Join(root, "deploy", "systemd"), filepath.Join(root, "deploy", "debian", "scripts")
	return &nfpm.Info{
		Name: "fleetcall", Version: version, Arch: arch, Platform: "linux", MTime: date, DisableGlobbing: true,
		Section: "net", Priority: "optional", Maintainer: "The fleetcall authors <fleetcall@users.noreply.github.com>",
		Homepage: "https://github.com/fleetcall/fleetcall", License: "MIT",
		Description: "one execution of a function across a fleet of replicas\n" +
			"Concurrent calls for the same thing, on all replicas, run once, by a Redis lease\nand Pub/Sub. It serves products, or is a proxy for a service of any language.",
		Overridables: nfpm.Overridables{
			Depends:    []string{"passwd"},
			Recommends: []string{"ca-certificates"},
			Suggests:   []string{"redis-server", "postgresql"},
			Contents: files.Contents{
				content(binary, "/usr/bin/fleetcall", 0o755, ""),
				content(filepath.Join(systemd, "fleetcall.service"), "/usr/lib/systemd/system/fleetcall.service", 0o644, ""),
				content(filepath.Join(systemd, "fleetcall-proxy@.service"), "/usr/lib/systemd/system/fleetcall-proxy@.service", 0o644, ""),
				// It has passwords, and systemd reads it as root.
				content(filepath.Join(systemd, "fleetcall.env"), "/etc/fleetcall/fleetcall.env", 0o600, files.TypeConfigNoReplace),
				content(filepath.Join(systemd, "proxy.env.example"), "/usr/share/doc/fleetcall/examples/proxy.env", 0o644, ""),
				content(filepath.Join(root, "LICENSE"), "/usr/share/doc/fleetcall/copyright", 0o644, ""),
			},
			Scripts: nfpm.Scripts{
				PostInstall: filepath.Join(scripts, "postinst"),
				PreRemove:   filepath.Join(scripts, "prerm"),
				PostRemove:  filepath.Join(scripts, "postrm"),
			},
			Deb: nfpm.Deb{Compression: "gzip"},
		},
	}
}
