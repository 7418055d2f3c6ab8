package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/load"
	"github.com/fleetcall/fleetcall/internal/report"
)

type demoCmd struct {
	Requests    int    `short:"n" env:"DEMO_REQUESTS" default:"1000" help:"How many requests to send in each mode."`
	Concurrency int    `short:"c" env:"DEMO_CONCURRENCY" default:"0" help:"How many to have under way at once; 0: all."`
	Replicas    int    `env:"FLEET_REPLICAS" default:"3" help:"How many replicas to run."`
	Balancer    string `env:"FLEET_BALANCER" enum:"auto,nginx,builtin" default:"auto" help:"auto takes nginx where it is installed, else the built-in one."`
	DatabaseURL string `name:"database-url" env:"DATABASE_URL" help:"PostgreSQL; empty: an embedded database."`
	RedisURL    string `name:"redis-url" env:"REDIS_URL" help:"Redis; empty: an embedded one."`

	QueryDelay time.Duration `env:"QUERY_DELAY" default:"500ms" help:"How long the simulated slow query holds its connection. It is doubled when not all requests come within a query."`

	Verbose bool   `short:"v" env:"DEMO_VERBOSE" help:"Show the logs of the replicas."`
	Report  string `env:"DEMO_REPORT" placeholder:"FILE.html" help:"Also write a report as a page, with charts."`
}

const (
	demoID = 1 // the product asked for
	// maxTries bounds how often a mode is measured until all requests come within a query.
	maxTries = 4
)

// demoTimeouts are those of the demo's replicas, unless the environment has others. A busy
// machine that stalls for a second must not look like a Redis that does not answer.
var demoTimeouts = map[string]string{"COALESCE_REDIS_TIMEOUT": "10s", "COALESCE_LEASE_TTL": "30s"}

// outcome is what the demo measured in one mode.
type outcome struct {
	mode    string
	result  *load.Result
	queries int64         // the database's count
	counted load.Stats    // by the replicas
	delay   time.Duration // of each query
	setup   []report.Fact
}

// Run loads a fleet in each mode and prints a report. It fails when a count is
// not what the mode promises, or an answer is wrong.
func (c *demoCmd) Run(ctx context.Context) error {
	if c.Requests < 1 || c.Concurrency < 0 || c.Replicas < 1 {
		return errors.New("fleetcall: --requests and --replicas have to be at least 1, --concurrency at least 0")
	}
	if c.Concurrency == 0 {
		c.Concurrency = c.Requests
	}
	file, err := createReport(c.Report)
	if err != nil {
		return err
	}
	if file != nil {
		defer file.Close()
	}
	begin := time.Now()
	fmt.Printf("%s requests for one product, %s at a time, to %d replicas, in each mode.\n",
		thousands(int64(c.Requests)), thousands(int64(c.Concurrency)), c.Replicas)
	if c.DatabaseURL != "" {
		if err := c.initdb(ctx); err != nil {
			return err
		}
	}
	var first sync.Map // the product's bytes, from the first answer
	var outcomes []outcome
	for _, mode := range []string{"off", "local", "distributed"} {
		o, err := c.measure(ctx, mode, &first)
		if err != nil {
			return err
		}
		outcomes = append(outcomes, o)
	}
	fmt.Println()
	var boxes []box
	for _, o := range outcomes {
		b := box{title: o.mode}
		b.add("Database queries", thousands(o.queries))
		b.addResult(o.result)
		boxes = append(boxes, b)
	}
	fmt.Print(drawBoxes(boxes, columns()))
	fmt.Printf("\nQueries were counted by\n  %s.\n\n", c.counter())
	wrong := c.judge(outcomes)
	if file != nil {
		if err := file.Write(c.page(outcomes, productName(&first), begin)); err != nil {
			return err
		}
		fmt.Printf("\nThe report is in %s.\n", c.Report)
	}
	fmt.Printf("\nThe demo took %s.\n", seconds(time.Since(begin)))
	if wrong > 0 {
		return fmt.Errorf("fleetcall: the demo failed: %d of %d modes are not as promised", wrong, len(outcomes))
	}
	return nil
}

func (c *demoCmd) counter() string {
	if c.DatabaseURL != "" {
		return "PostgreSQL, in its own statistics (pg_stat_user_tables)"
	}
	return "each replica's embedded database (database.queries of /stats?scope=fleet)"
}

// judge prints for each mode whether its counts are right, and returns how many modes
// are wrong.
func (c *demoCmd) judge(outcomes []outcome) int {
	wrong := 0
	for _, o := range outcomes {
		if faults := c.faults(o); len(faults) > 0 {
			wrong++
			fmt.Printf("WRONG  %-12s %s: %s\n", o.mode, c.summary(o), strings.Join(faults, "; "))
		} else {
			fmt.Printf("right  %-12s %s\n", o.mode, c.summary(o))
		}
	}
	return wrong
}

func (c *demoCmd) summary(o outcome) string {
	queries := "queries"
	if o.queries == 1 {
		queries = "query"
	}
	summary := fmt.Sprintf("%s requests, %s %s", thousands(int64(c.Requests)), thousands(o.queries), queries)
	if o.delay != c.QueryDelay {
		summary += fmt.Sprintf(" of %v, because not all requests came within %v", o.delay, o.delay/2)
	}
	return summary
}

// faults returns a sentence for each count that is not as the mode promises.
func (c *demoCmd) faults(o outcome) []string {
	var faults []string
	if low, high := c.promised(o.mode); o.queries < low || o.queries > high {
		promise := thousands(low)
		if high > low {
			promise += " to " + thousands(high)
		}
		faults = append(faults, "promised "+promise)
	}
	if o.counted.Misses != o.queries {
		faults = append(faults, fmt.Sprintf("the replicas counted %s", thousands(o.counted.Misses)))
	}
	if o.result.OK != c.Requests {
		faults = append(faults, fmt.Sprintf("%s requests failed: %s", thousands(int64(c.Requests-o.result.OK)), listCounts(o.result.Errors)))
	}
	return faults
}

// page returns the content of the report's file.
func (c *demoCmd) page(outcomes []outcome, product string, begun time.Time) *report.Report {
	r := &report.Report{
		Title: "fleetcall demo", Command: c.commandLine(), Begun: begun, Took: time.Since(begun), Machine: report.Machine(buildVersion()),
		Setup: append([]report.Fact{{Name: "Product", Value: fmt.Sprintf("%d, %s", demoID, product)}}, outcomes[0].setup...),
	}
	for _, o := range outcomes {
		faults := c.faults(o)
		verdict := strings.Join(append([]string{c.summary(o)}, faults...), "; ")
		r.Runs = append(r.Runs, report.Run{
			Name: o.mode, Result: o.result, Queries: &o.queries, Counter: c.counter(), Fleet: &o.counted, Verdict: verdict, Wrong: len(faults) > 0,
		})
	}
	return r
}

// commandLine returns the command that does the same again, without the addresses of the
// servers, which may have passwords.
func (c *demoCmd) commandLine() string {
	words := fleetEnvironment()
	for name, value := range map[string]string{"DATABASE_URL": c.DatabaseURL, "REDIS_URL": c.RedisURL} {
		if value != "" {
			words = append(words, name+"=…")
		}
	}
	slices.Sort(words)
	words = append(words, "fleetcall", "demo", "--requests="+strconv.Itoa(c.Requests), "--concurrency="+strconv.Itoa(c.Concurrency),
		"--replicas="+strconv.Itoa(c.Replicas), "--balancer="+c.Balancer, "--query-delay="+c.QueryDelay.String())
	if c.Verbose {
		words = append(words, "--verbose")
	}
	return commandLine(append(words, "--report="+c.Report)...)
}

// productName returns the name in the first answer.
func productName(first *sync.Map) string {
	raw, _ := first.Load(demoID)
	text, _ := raw.([]byte)
	var product struct {
		Name string `json:"name"`
	}
	if json.Unmarshal(text, &product) != nil {
		return "unknown"
	}
	return product.Name
}

// promised returns how many queries a mode may need when all requests are
// under way at once.
func (c *demoCmd) promised(mode string) (low, high int64) {
	switch mode {
	case "off":
		return int64(c.Requests), int64(c.Requests)
	case "local":
		return 1, int64(c.Replicas)
	}
	return 1, 1
}

// measure loads a fleet in a mode. When more flights than promised followed one another, it
// loads another one, with queries that take twice as long: the machine was too busy for all
// requests to come within one. A fault of the fleet would be found again.
func (c *demoCmd) measure(ctx context.Context, mode string, first *sync.Map) (outcome, error) {
	for try, delay := 1, c.QueryDelay; ; try, delay = try+1, 2*delay {
		o, err := c.load(ctx, mode, delay, first)
		if err != nil || try == maxTries || !c.cameLate(o) {
			return o, err
		}
		fmt.Fprintf(os.Stderr, "%-12s %s queries: not all requests came within %v; once more, with queries of %v\n", mode, thousands(o.queries), delay, 2*delay)
	}
}

// cameLate reports whether some of the requests that were sent at once may have come when
// the first flight was over. A replica that ran its own query for another reason counts a
// fallback or a takeover.
func (c *demoCmd) cameLate(o outcome) bool {
	_, high := c.promised(o.mode)
	tier := o.counted.Tiers.Distributed
	shared := tier == nil || tier.Fallbacks == 0 && tier.Takeovers == 0 && tier.LeaseLost == 0
	return c.Concurrency == c.Requests && o.queries > high && shared
}

func (c *demoCmd) load(ctx context.Context, mode string, delay time.Duration, first *sync.Map) (o outcome, err error) {
	fmt.Fprintf(os.Stderr, "%-12s starting %d replicas\n", mode, c.Replicas)
	var before int64
	if c.DatabaseURL != "" {
		if before, err = c.scans(ctx); err != nil {
			return o, err
		}
	}
	f, err := fleet.Start(ctx, c.fleet(mode, delay))
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if mode == "off" {
		fmt.Fprintf(os.Stderr, "%14s balancer: %s\n%14s database: %s\n%14s Redis: %s\n", "", f.Balancer(), "", f.Database(), "", f.Redis())
	}
	o.setup = []report.Fact{{Name: "Replicas", Value: strconv.Itoa(c.Replicas)}, {Name: "Balancer", Value: f.Balancer()},
		{Name: "Database", Value: f.Database()}, {Name: "Redis", Value: f.Redis()}}
	target := load.Target{Base: f.URL()}
	idle, err := target.FleetStatsOf(ctx, c.Replicas)
	if err != nil {
		return o, err
	}
	o.mode, o.delay = mode, delay
	if o.result, err = c.send(ctx, f.URL(), mode, first); err != nil {
		return o, err
	}
	if o.counted, err = target.Counted(ctx, idle, o.result); err != nil {
		return o, err
	}
	o.queries = o.counted.Database.Queries
	if c.DatabaseURL != "" {
		// A connection's statistics are complete when it is closed.
		if err := f.Close(); err != nil {
			return o, err
		}
		o.queries, err = c.scansSince(ctx, before, o.counted.Database.Queries)
	}
	return o, err
}

// fleet returns the settings of the fleet that the demo starts in a mode.
func (c *demoCmd) fleet(mode string, delay time.Duration) fleet.Config {
	config := fleet.Config{
		Replicas:    c.Replicas,
		Mode:        mode,
		DatabaseURL: c.DatabaseURL,
		RedisURL:    c.RedisURL,
		Balancer:    c.Balancer,
		// Another fleet on the same Redis must not take part.
		Env:    []string{"COALESCE_NAMESPACE=fleetcall-demo-" + rand.Text(), "COALESCE_MAX_AGE=0s", "QUERY_DELAY=" + delay.String()},
		Report: reportFleet,
	}
	set := func(name string) bool { return os.Getenv(name) != "" }
	if !slices.ContainsFunc(slices.Collect(maps.Keys(demoTimeouts)), set) {
		for name, value := range demoTimeouts {
			config.Env = append(config.Env, name+"="+value)
		}
	}
	if c.Verbose {
		config.Logs = os.Stderr
	}
	return config
}

// send sends the requests to a fleet, and shows the progress.
func (c *demoCmd) send(ctx context.Context, base, mode string, first *sync.Map) (*load.Result, error) {
	fmt.Fprintf(os.Stderr, "%-12s sending %s requests\n", mode, thousands(int64(c.Requests)))
	answered, finish := requestProgress(c.Requests, mode)
	defer finish()
	return load.Run(ctx, load.Config{
		URLs:        []string{fmt.Sprintf("%s/product/coalesced/%d", base, demoID)},
		Requests:    c.Requests,
		Concurrency: c.Concurrency,
		Check: func(_ string, _ http.Header, body []byte) error {
			return checkProduct(body, first)
		},
		Answered: answered,
		Connect:  true,
	})
}

// checkProduct returns what is wrong with an answer. It must have the right product, with
// the same bytes as all other answers.
func checkProduct(body []byte, first *sync.Map) error {
	var answer struct {
		Product json.RawMessage `json:"product"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return errors.New("not JSON")
	}
	var product struct {
		ID   int    `json:"id"`
		Name string `json:"name"`
	}
	if err := json.Unmarshal(answer.Product, &product); err != nil || product.Name == "" {
		return errors.New("no product")
	}
	if product.ID != demoID {
		return fmt.Errorf("product %d", product.ID)
	}
	other, _ := first.LoadOrStore(demoID, []byte(answer.Product))
	if !bytes.Equal(other.([]byte), answer.Product) {
		return errors.New("a product that differs from another answer's")
	}
	return nil
}

func listCounts(counts map[string]int) string {
	var parts []string
	for _, label := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %s", thousands(int64(counts[label])), label))
	}
	return strings.Join(parts, ", ")
}
