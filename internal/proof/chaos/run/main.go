// Command run runs a fault campaign against a fleet of replicas on this
// machine, and prints what it found. make chaos starts it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fleetcall/fleetcall/internal/proof/chaos"
)

func main() {
	chaos.ServeReplica()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		log.SetFlags(0)
		log.Print(err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) (ok bool, err error) {
	config := chaos.Config{Replicas: 5, Keeping: 2, Callers: 8}
	flag.DurationVar(&config.Time, "time", 3*time.Minute, "how long faults are injected")
	flag.Uint64Var(&config.Seed, "seed", 0, "of the choices of callers and faults; 0: a random one")
	flag.IntVar(&config.Replicas, "replicas", config.Replicas, "processes without MaxAge")
	faults := flag.String("faults", "", "names of the faults to inject, separated by commas; empty: all")
	markdown := flag.String("markdown", "", "file whose table is replaced: docs/faults.md")
	databases := flag.Int("databases", 3, "how often the database of a fleet of the program is killed")
	flag.IntVar(&config.Clusters, "clusters", 2, "how often a master of a Cluster is killed, and frozen")
	keep := flag.Bool("keep", false, "keep the history")
	broken := flag.String("broken", "", "break the first replica on purpose: bypass, stale, swallow or mix")
	flag.Parse()
	if config.Seed == 0 {
		config.Seed = uint64(rand.Uint32())
	}
	if *faults != "" {
		config.Faults = strings.Split(*faults, ",")
	}
	config.Broken = chaos.Broken(*broken)
	if config.Dir, err = os.MkdirTemp("", "fleetcall-chaos-"); err != nil {
		return false, err
	}
	defer func() {
		if ok && !*keep {
			err = os.RemoveAll(config.Dir)
			return
		}
		_, _ = fmt.Fprintln(out, "history:", config.Dir)
	}()
	if *databases > 0 {
		config.Databases, config.Binary = *databases, filepath.Join(config.Dir, "fleetcall")
		build := exec.CommandContext(ctx, "go", "build", "-o", config.Binary, "github.com/fleetcall/fleetcall/cmd/fleetcall")
		if output, err := build.CombinedOutput(); err != nil {
			return false, fmt.Errorf("chaos: building fleetcall: %w\n%s", err, output)
		}
	}
	config.Progress = func(text string) { _, _ = fmt.Fprintln(os.Stderr, text) }
	_, _ = fmt.Fprintf(out, "seed %d\n", config.Seed)
	result, err := chaos.Run(ctx, config)
	if err != nil {
		return false, fmt.Errorf("%w\nseed %d", err, config.Seed)
	}
	if err := report(out, config, result); err != nil {
		return false, err
	}
	if *markdown != "" {
		if err := write(*markdown, config, result); err != nil {
			return false, err
		}
	}
	return len(result.Failures) == 0, nil
}

func report(out io.Writer, config chaos.Config, result chaos.Result) error {
	if err := chaos.Print(out, result.Rows); err != nil {
		return err
	}
	for _, fault := range slices.Sorted(maps.Keys(result.Skipped)) {
		_, _ = fmt.Fprintf(out, "SKIPPED: %s, which needs %s\n", fault, result.Skipped[fault])
	}
	h := result.History
	_, _ = fmt.Fprintf(out, "%d calls, %d executions, %d flights; outcomes: %v\n", h.Calls, h.Executions, h.Flights, h.Outcomes)
	_, _ = fmt.Fprintf(out, "%d Forgets: %d callers of other replicas joined a forgotten flight, the last one %v after\n",
		h.Forgets.Forgets, h.Forgets.StaleCalls, h.Forgets.Longest)
	_, _ = fmt.Fprintf(out, "%d fallbacks after a timeout that no fault explains\n", h.Unexplained)
	for _, failure := range result.Failures {
		_, _ = fmt.Fprintln(out, "FAILED:", failure)
	}
	_, err := fmt.Fprintf(out, "%d violations; seed %d\n", len(h.Violations), config.Seed)
	return err
}

// The table stands between these in the file that -markdown names.
const (
	tableBegins = "<!-- table -->\n"
	tableEnds   = "<!-- end of the table -->\n"
)

// write puts the table, and how it was made, into the file.
func write(file string, config chaos.Config, result chaos.Result) error {
	text, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(text), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return fmt.Errorf("chaos: %s has no place for the table, between %q and %q", file, tableBegins, tableEnds)
	}
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, "%s%s\n`make chaos TIME=%v SEED=%d`, on %d cores with %s and Redis %s: %d calls, %d executions, %d violations.\n\n",
		before, tableBegins, config.Time, config.Seed, runtime.NumCPU(), runtime.Version(), result.Redis,
		result.History.Calls, result.History.Executions, len(result.History.Violations))
	if err := chaos.Markdown(&b, result.Rows); err != nil {
		return err
	}
	for _, fault := range slices.Sorted(maps.Keys(result.Skipped)) {
		_, _ = fmt.Fprintf(&b, "\nNot injected: %s, which needs %s.\n", fault, result.Skipped[fault])
	}
	b.WriteString("\n" + tableEnds + after)
	return os.WriteFile(file, []byte(b.String()), 0o644)
}
