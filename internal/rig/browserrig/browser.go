// Package browserrig drives Chromium, for tests of the pages and for screenshots. The
// browser reaches only this machine. When it is closed, it leaves no process and no
// directory.
package browserrig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// stepLimit bounds each action on a page.
const stepLimit = 2 * time.Minute

// Browser is a running Chromium. Close it after use.
type Browser struct {
	ctx  context.Context
	stop context.CancelFunc
	dir  string
}

// Find returns the path of the installed Chromium. If there is none, the error says how
// to install it.
func Find() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("fleetcall: Chromium is not installed; on Debian or Ubuntu: sudo apt-get install -y chromium (or: make setup)")
}

// Start starts a Chromium without a window.
func Start() (*Browser, error) {
	path, err := Find()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "fleetcall-browser-")
	if err != nil {
		return nil, fmt.Errorf("fleetcall: making the browser's directory: %w", err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.UserDataDir(dir),
		chromedp.NoSandbox, // the sandbox needs rights that many containers lack
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-domain-reliability", true),
		chromedp.Flag("no-pings", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
		chromedp.Flag("font-render-hinting", "none"),
	)
	allocator, stopAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	// The log functions drop messages about events that this version of the protocol
	// does not know.
	ctx, stop := chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {}), chromedp.WithLogf(func(string, ...any) {}))
	b := &Browser{ctx: ctx, dir: dir, stop: func() { stop(); stopAllocator() }}
	if err := chromedp.Do(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("fleetcall: starting Chromium: %w", err), b.Close())
	}
	return b, nil
}

// Close ends the browser and removes its directory.
func (b *Browser) Close() error {
	limited, cancel := context.WithTimeout(b.ctx, time.Minute)
	_ = chromedp.Cancel(limited) // if it fails, stop ends the browser all the same
	cancel()
	b.stop()
	// The browser's child processes may write to the directory for a moment longer.
	var err error
	for range 100 {
		if err = os.RemoveAll(b.dir); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("fleetcall: removing the browser's directory: %w", err)
}

// View describes the window and the user's preferences. The zero value is 1280×800
// pixels, light, with motion.
type View struct {
	Width, Height int
	Scale         float64 // device pixels for each pixel; zero: 1
	Dark          bool
	ReducedMotion bool // prefers-reduced-motion
}

// Page is an open page. Its methods must not be called concurrently.
type Page struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu            sync.Mutex
	consoleErrors []ConsoleError
}

// ConsoleError is an error or warning in the browser's console. Source is "exception",
// "console", or the part of the browser that found it: "security" for a violation of
// the Content-Security-Policy, "network" for a failed response.
type ConsoleError struct{ Source, Text string }

// Open opens an address in a new tab.
func (b *Browser) Open(url string, view View) (*Page, error) {
	ctx, cancel := chromedp.NewContext(b.ctx)
	p := &Page{ctx: ctx, cancel: cancel}
	err := chromedp.Listen(ctx, p.record)
	if err == nil {
		err = p.SetView(view)
	}
	if err == nil {
		err = p.do(chromedp.Navigate(url))
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("fleetcall: opening %s: %w", url, err)
	}
	return p, nil
}

// Close closes the tab.
func (p *Page) Close() { p.cancel() }

// record keeps errors and warnings.
func (p *Page) record(event any) {
	var c ConsoleError
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		c = ConsoleError{"exception", e.ExceptionDetails.Text}
		if e.ExceptionDetails.Exception != nil {
			c.Text += " " + e.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type != runtime.ConsoleAPICalledTypeError && e.Type != runtime.ConsoleAPICalledTypeWarning && e.Type != runtime.ConsoleAPICalledTypeAssert {
			return
		}
		var words []string
		for _, arg := range e.Args {
			words = append(words, string(arg.Value)+arg.Description)
		}
		c = ConsoleError{"console", strings.Join(words, " ")}
	case *log.EventEntryAdded:
		if e.Entry.Level != log.EntryLevelError && e.Entry.Level != log.EntryLevelWarning {
			return
		}
		c = ConsoleError{string(e.Entry.Source), e.Entry.Text + " " + e.Entry.URL}
	default:
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.consoleErrors = append(p.consoleErrors, c)
}

// ConsoleErrors returns the errors and warnings so far.
func (p *Page) ConsoleErrors() []ConsoleError {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]ConsoleError(nil), p.consoleErrors...)
}

func (p *Page) do(steps ...chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(p.ctx, stepLimit)
	defer cancel()
	return chromedp.Do(ctx, steps...)
}

// SetView changes the view.
func (p *Page) SetView(v View) error {
	if v.Width == 0 {
		v.Width, v.Height = 1280, 800
	}
	if v.Scale == 0 {
		v.Scale = 1
	}
	scheme, motion := "light", "no-preference"
	if v.Dark {
		scheme = "dark"
	}
	if v.ReducedMotion {
		motion = "reduce"
	}
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: motion},
	}})
	return errors.Join(err, p.do(chromedp.EmulateViewport(int64(v.Width), int64(v.Height), chromedp.EmulateScale(v.Scale))))
}

// Eval returns the value of a JavaScript expression. If the value is a promise, Eval
// waits for it.
func Eval[T any](p *Page, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(p.ctx, stepLimit)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// WaitFor waits until a JavaScript expression is true. It evaluates the expression
// every 20 ms.
func (p *Page) WaitFor(expression string) error {
	_, err := Eval[bool](p, `new Promise((resolve, reject) => {
		const begin = performance.now();
		const look = () => {
			if (`+expression+`) resolve(true);
			else if (performance.now() - begin > 25000) reject(new Error('not within 25 s'));
			else setTimeout(look, 20);
		};
		look();
	})`)
	if err != nil {
		return fmt.Errorf("fleetcall: waiting for %s: %w", expression, err)
	}
	return nil
}

// Text returns the text of the first element that matches the selector.
func (p *Page) Text(selector string) (string, error) {
	return Eval[string](p, "document.querySelector("+quote(selector)+").textContent")
}

// Press presses keys one after the other. Package github.com/chromedp/chromedp/kb has
// the keys that are not characters.
func (p *Page) Press(keys string) error { return p.do(chromedp.KeyEvent(keys)) }

// Click clicks on the first element that matches the selector.
func (p *Page) Click(selector string) error { return p.do(chromedp.Click(chromedp.CSS(selector))) }

// Screenshot returns a PNG of the first element that matches the selector, or of the
// whole page if the selector is empty.
func (p *Page) Screenshot(selector string) ([]byte, error) {
	params := page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatPng}
	beyond := true
	params.CaptureBeyondViewport = &beyond
	box := "document.documentElement.getBoundingClientRect()"
	if selector != "" {
		box = "document.querySelector(" + quote(selector) + ").getBoundingClientRect()"
	}
	rect, err := Eval[struct{ X, Y, Width, Height float64 }](p, "(() => { const b = "+box+
		"; return { X: b.x + scrollX, Y: b.y + scrollY, Width: b.width, Height: b.height } })()")
	if err != nil {
		return nil, err
	}
	params.Clip = &page.Viewport{X: rect.X, Y: rect.Y, Width: rect.Width, Height: rect.Height, Scale: 1}
	ctx, cancel := context.WithTimeout(p.ctx, stepLimit)
	defer cancel()
	shot, err := chromedp.Call(ctx, page.CaptureScreenshot, params)
	return shot.Data, err
}

// ScreenshotViewport returns a PNG of the part of the page that is in view.
func (p *Page) ScreenshotViewport() ([]byte, error) {
	ctx, cancel := context.WithTimeout(p.ctx, stepLimit)
	defer cancel()
	return chromedp.Run(ctx, chromedp.CaptureScreenshot())
}

// quote returns the text as a JavaScript string literal.
func quote(text string) string { return fmt.Sprintf("%q", text) }

// Dir returns the browser's directory, which exists until Close.
func (b *Browser) Dir() string { return b.dir }
