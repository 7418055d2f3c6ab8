// Command run renames the repository's modules and makes releases of them. The
// Makefile starts it, in the repository's root.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/fleetcall/fleetcall/internal/publish"
)

type commands struct {
	ModulePath modulePathCmd `cmd:"" help:"Give the modules another path."`
	Release    releaseCmd    `cmd:"" help:"Commit, tag and build a version; push nothing."`
	Dist       distCmd       `cmd:"" help:"Build the binaries of a tagged version anew."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	command := kong.Parse(&commands{}, kong.Name("publish"), kong.BindTo(ctx, (*context.Context)(nil)))
	err := command.Run()
	stop()
	if err != nil {
		log.SetFlags(0)
		log.Fatal(err)
	}
}

type modulePathCmd struct {
	Path string `arg:"" help:"As example.com/team/fleetcall."`
}

// Run renames the tree.
func (c modulePathCmd) Run(ctx context.Context) error {
	if err := publish.Rename(ctx, ".", c.Path); err != nil {
		return err
	}
	fmt.Printf("The module path is %s. Look at the changes (git diff), then commit them.\n", c.Path)
	return nil
}

type versionArgs struct {
	Version   string `arg:"" help:"As v0.2.0."`
	Platforms string `help:"As linux/amd64,darwin/arm64; empty: all of a release."`
}

// release is what the arguments ask for.
func (a versionArgs) release() (publish.Release, error) {
	platforms, err := publish.ParsePlatforms(a.Platforms)
	if err != nil {
		return publish.Release{}, err
	}
	date := time.Now()
	// reproducible-builds.org: who makes a release anew sets the time of the first.
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return publish.Release{}, fmt.Errorf("fleetcall: SOURCE_DATE_EPOCH is a number of seconds since 1970: %w", err)
		}
		date = time.Unix(seconds, 0)
	}
	return publish.Release{Version: a.Version, Date: date, Platforms: platforms, Log: os.Stdout}, nil
}

type releaseCmd struct{ versionArgs }

// Run makes the release.
func (c releaseCmd) Run(ctx context.Context) error {
	release, err := c.release()
	if err != nil {
		return err
	}
	return release.Make(ctx, ".")
}

type distCmd struct{ versionArgs }

// Run builds the release's binaries.
func (c distCmd) Run(ctx context.Context) error {
	release, err := c.release()
	if err != nil {
		return err
	}
	return release.Build(ctx, ".", "dist")
}
