// Command fleetcall serves products over HTTP so that requests for the same
// product, at the same time and on every replica, share one database query. Its
// other commands run a fleet of replicas, load one, and prepare a database.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the linker for a release.
var version = ""

const (
	exitFailure = 1
	exitUsage   = 2
)

type cli struct {
	Serve   serveCmd   `cmd:"" help:"Run one replica."`
	Proxy   proxyCmd   `cmd:"" help:"Run one replica as a proxy for a service of any language."`
	Fleet   fleetCmd   `cmd:"" help:"Run several replicas on this machine behind a balancer."`
	Demo    demoCmd    `cmd:"" help:"Run a fleet, load it in every mode, and check the counts."`
	Load    loadCmd    `cmd:"" help:"Load a running server."`
	Initdb  initdbCmd  `cmd:"" help:"Make and fill the table products."`
	Health  healthCmd  `cmd:"" help:"Ask this machine's replica whether it is ready."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs one command and returns the process' exit status: 0, 1 when the
// command failed, 2 when it was called wrongly.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	if err := loadEnvironment(".env"); err != nil {
		_, _ = fmt.Fprintln(stderr, err)
		return exitUsage
	}
	// kong ends the program by itself for --help.
	type exit int
	defer func() {
		if value := recover(); value != nil {
			status, ok := value.(exit)
			if !ok {
				panic(value)
			}
			code = int(status)
		}
	}()
	var c cli
	parser, err := kong.New(&c,
		kong.Name("fleetcall"),
		kong.Description("One database query for all requests that want the same thing at the same time, on every replica."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(status int) { panic(exit(status)) }),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.BindTo(stdout, (*io.Writer)(nil)),
	)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "fleetcall:", err)
		return exitFailure
	}
	command, err := parser.Parse(args)
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "fleetcall: %v\nfleetcall --help lists the commands and their flags.\n", err)
		return exitUsage
	}
	for _, sentence := range misspelt(parser.Model, os.Environ()) {
		_, _ = fmt.Fprintln(stderr, sentence)
	}
	if err := command.Run(); err != nil {
		if errors.Is(err, context.Canceled) && ctx.Err() != nil {
			return exitFailure // by a signal, which needs no explanation
		}
		_, _ = fmt.Fprintln(stderr, "fleetcall:", strings.TrimPrefix(err.Error(), "fleetcall: "))
		return exitFailure
	}
	return 0
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(stdout io.Writer) error {
	_, err := fmt.Fprintf(stdout, "fleetcall %s %s %s/%s\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// logFlags say what is logged and how.
type logFlags struct {
	LogLevel  slog.Level `env:"LOG_LEVEL" default:"info" placeholder:"info" help:"debug, info, warn or error; debug logs every request."`
	LogFormat string     `env:"LOG_FORMAT" default:"text" help:"text or json."`
}

func (f *logFlags) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: f.LogLevel}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
