// Command screenshots takes the screenshots of the documents. It runs a fleet with
// embedded parts, sends it requests, and looks at its pages with Chromium.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"image/png"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/rig/browserrig"
)

const (
	width, height = 1280, 900
	phone         = 390
	// busyFor is how long the fleet gets requests before the screenshot, so that the
	// charts have something to show.
	busyFor = 65 * time.Second
	// maxBytes is the size of the largest screenshot in bytes. It is limited because
	// every clone of the repository contains them.
	maxBytes = 250 << 10
)

func main() {
	binary := flag.String("binary", "bin/fleetcall", "the program")
	dir := flag.String("dir", "docs/screenshots", "where the pictures go")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary, *dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary, dir string) (err error) {
	binary, err = filepath.Abs(binary)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("fleetcall: making the pictures' directory: %w", err)
	}
	f, err := fleet.Start(ctx, fleet.Config{Binary: binary, Env: environment("QUERY_DELAY=400ms"), Report: func(text string) { fmt.Fprintln(os.Stderr, text) }})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := browserrig.Start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	album := &album{browser: b, dir: dir}
	if err := album.page(ctx, f.URL()); err != nil {
		return err
	}
	if err := album.visible(f.URL()+"/docs", "docs", browserrig.View{Width: width, Height: height}); err != nil {
		return err
	}
	return album.report(ctx, binary)
}

// environment makes the screenshots independent of the environment and of the load of
// the machine.
func environment(more ...string) []string {
	return append([]string{"ADMIN_TOKEN=", "COALESCE_REDIS_TIMEOUT=2s"}, more...)
}

// busy sends requests until ctx ends. Some keys are hotter than others, and from time
// to time many requests come at once.
func busy(ctx context.Context, base string) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	defer client.CloseIdleConnections()
	var all sync.WaitGroup
	get := func(path string) {
		all.Go(func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
			if err != nil {
				return
			}
			if resp, err := client.Do(req); err == nil {
				_ = resp.Body.Close()
			}
		})
	}
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			all.Wait()
			return
		case <-tick.C:
		}
		get(fmt.Sprintf("/product/coalesced/%d", 1+int(rand.ExpFloat64()*3)))
		if n%20 == 0 {
			get("/product/normal/9")
		}
		if n%150 < 40 {
			for range 3 {
				get("/product/coalesced/1")
			}
		}
	}
}

// album takes screenshots and stores them in a directory.
type album struct {
	browser *browserrig.Browser
	dir     string
}

// page takes the page while the fleet is busy, and a burst while it is not.
func (a *album) page(ctx context.Context, base string) error {
	working, rest := context.WithCancel(ctx)
	var load sync.WaitGroup
	load.Go(func() { busy(working, base) })
	p, err := a.browser.Open(base+"/", browserrig.View{Width: width, Height: height})
	if err != nil {
		rest()
		return err
	}
	defer p.Close()
	select {
	case <-time.After(busyFor):
	case <-ctx.Done():
	}
	dark := browserrig.View{Width: width, Height: 1200, Dark: true}
	err = errors.Join(p.SetView(dark), scroll(p, "#charts"), p.WaitFor("document.querySelectorAll('#leases-table tbody tr').length > 0"), a.keep(p.ScreenshotViewport, "page-dark"))
	rest()
	load.Wait()
	if err != nil {
		return err
	}

	light := browserrig.View{Width: width, Height: 1000}
	err = errors.Join(
		p.SetView(light), scroll(p, "body"),
		p.WaitFor("document.querySelectorAll('#leases-table tbody tr').length === 0"),
		p.Click("#burst-button"),
		p.WaitFor("document.querySelector('#steps li:nth-child(2)')?.hasAttribute('aria-current')"),
		p.WaitFor("document.querySelectorAll('#picture .dot').length > 0"), wait(p, 900),
		a.keep(func() ([]byte, error) { return p.Screenshot("#picture") }, "burst"),
		p.WaitFor("document.querySelector('#pause').getAttribute('aria-disabled') === 'true'"), scroll(p, "body"),
		a.keep(p.ScreenshotViewport, "page-light"),
	)
	if err != nil {
		return err
	}
	small := browserrig.View{Width: phone, Height: 844, Scale: 2}
	return errors.Join(
		p.SetView(small), p.WaitFor("document.querySelector('#picture svg').classList.contains('tall')"), scroll(p, "#burst"),
		a.keep(p.ScreenshotViewport, "page-phone"),
	)
}

func scroll(p *browserrig.Page, selector string) error {
	_, err := browserrig.Eval[any](p, fmt.Sprintf("document.querySelector(%q).scrollIntoView({ behavior: 'instant' })", selector))
	return err
}

// wait waits while the animation continues.
func wait(p *browserrig.Page, ms int) error {
	_, err := browserrig.Eval[bool](p, fmt.Sprintf("new Promise((resolve) => setTimeout(() => resolve(true), %d))", ms))
	return err
}

// visible takes the visible part of the page at an address.
func (a *album) visible(address, name string, view browserrig.View) error {
	p, err := a.browser.Open(address, view)
	if err != nil {
		return err
	}
	defer p.Close()
	return a.keep(p.ScreenshotViewport, name)
}

// report takes the report of a demo.
func (a *album) report(ctx context.Context, binary string) error {
	dir, err := os.MkdirTemp("", "fleetcall-screenshots-")
	if err != nil {
		return fmt.Errorf("fleetcall: making the report's directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	demo := exec.CommandContext(ctx, binary, "demo", "--requests", "300", "--report", "demo.html")
	demo.Dir, demo.Env = dir, append(os.Environ(), environment("QUERY_DELAY=1s", "DATABASE_URL=", "REDIS_URL=")...)
	if out, err := demo.CombinedOutput(); err != nil {
		return fmt.Errorf("fleetcall: running the demo: %w\n%s", err, out)
	}
	file := url.URL{Scheme: "file", Path: filepath.Join(dir, "demo.html")}
	return a.visible(file.String(), "report", browserrig.View{Width: width, Height: 1100})
}

// keep stores a screenshot with the best compression of PNG.
func (a *album) keep(take func() ([]byte, error), name string) error {
	raw, err := take()
	if err != nil {
		return fmt.Errorf("fleetcall: taking the picture %s: %w", name, err)
	}
	picture, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("fleetcall: reading the picture %s: %w", name, err)
	}
	var packed bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&packed, picture); err != nil {
		return fmt.Errorf("fleetcall: writing the picture %s: %w", name, err)
	}
	if packed.Len() > maxBytes {
		return fmt.Errorf("fleetcall: the picture %s has %d bytes, more than %d", name, packed.Len(), maxBytes)
	}
	file := filepath.Join(a.dir, name+".png")
	fmt.Printf("%s  %d KiB\n", file, packed.Len()>>10)
	return os.WriteFile(file, packed.Bytes(), 0o644)
}
