package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/fleetcall/fleetcall/internal/load"
	"github.com/fleetcall/fleetcall/internal/report"
)

const (
	maxIDs = 100_000
	// maxBatch is how many products the server takes in one request.
	maxBatch = 200
)

type loadCmd struct {
	Server      string `arg:"" optional:"" name:"server" placeholder:"URL" help:"Base URL of the server, instead of --url."`
	URL         string `name:"url" env:"LOAD_URL" default:"http://localhost:8000" help:"Base URL of the server."`
	Endpoint    string `env:"LOAD_ENDPOINT" enum:"normal,coalesced" default:"coalesced" help:"Endpoint to ask: normal or coalesced."`
	IDs         string `name:"ids" aliases:"id" env:"LOAD_IDS" default:"1" placeholder:"IDS" help:"Product ids and ranges of them, as in 1-100,7, asked in turn; by default 1."`
	Batch       int    `env:"LOAD_BATCH" placeholder:"N" help:"Ask for N products, 1 to 200, in each request."`
	Requests    int    `short:"n" env:"LOAD_REQUESTS" default:"1000" help:"How many requests to send."`
	Concurrency int    `short:"c" env:"LOAD_CONCURRENCY" default:"100" help:"How many to have under way at once."`
	Format      string `env:"LOAD_FORMAT" enum:"text,json" default:"text" help:"Form of the report: text or json."`
	Reset       bool   `env:"LOAD_RESET" help:"Set the server's statistics to zero first."`
	AdminToken  string `env:"ADMIN_TOKEN" help:"Token that --reset may need."`
	Report      string `env:"LOAD_REPORT" placeholder:"FILE.html" help:"Also write a report as a page, with charts."`
}

// Run sends the load and prints what it measured. It fails when no server
// answers and when a request failed.
func (c *loadCmd) Run(ctx context.Context) error {
	ids, err := parseIDs(c.IDs)
	if err != nil {
		return err
	}
	base, err := c.check()
	if err != nil {
		return err
	}
	target := load.Target{Base: strings.TrimRight(c.URL, "/"), AdminToken: c.AdminToken}
	file, err := createReport(c.Report)
	if err != nil {
		return err
	}
	if file != nil {
		defer file.Close()
	}
	if err := target.Alive(ctx); err != nil {
		return err
	}
	if c.Reset {
		if err := target.ResetStats(ctx); err != nil {
			return err
		}
	}
	before, unknown := target.FleetStats(ctx)

	urls := c.urls(target.Base, ids)
	answered, finish := requestProgress(c.Requests, c.Endpoint)
	begun := time.Now()
	result, err := load.Run(ctx, load.Config{URLs: urls, Requests: c.Requests, Concurrency: c.Concurrency, Answered: answered})
	finish()
	if result == nil {
		return err
	}
	out := loadReport{URL: publicURL(base), Endpoint: c.Endpoint, BrokenOff: err != nil, Result: result, requests: c.Requests, batch: c.Batch}
	out.count(ctx, target, before, unknown)
	err = errors.Join(err, out.print(c.Format))
	if file != nil {
		if writeErr := file.Write(c.page(out, begun)); writeErr != nil {
			return errors.Join(err, writeErr)
		}
		fmt.Fprintf(os.Stderr, "The report is in %s.\n", c.Report)
	}
	if err == nil && result.Failed > 0 {
		err = fmt.Errorf("fleetcall: %d of %d requests failed", result.Failed, result.Requests)
	}
	return err
}

// check refuses what cannot be, and returns the server's base URL.
func (c *loadCmd) check() (base *url.URL, err error) {
	if c.Requests < 1 || c.Concurrency < 1 {
		return nil, errors.New("fleetcall: --requests and --concurrency have to be at least 1")
	}
	if c.Batch < 0 || c.Batch > maxBatch {
		return nil, fmt.Errorf("fleetcall: --batch has to be from 1 to %d products", maxBatch)
	}
	if c.Batch > 0 && c.Endpoint != "coalesced" {
		return nil, errors.New("fleetcall: --batch asks the coalesced endpoint for many products; there is no normal one")
	}
	if c.Server != "" {
		c.URL = c.Server
	}
	base, err = url.Parse(c.URL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" || strings.ContainsAny(c.URL, "?#") {
		// The error does not quote the URL, which may have a password.
		return nil, errors.New("fleetcall: the server (the argument or --url) is not a URL like http://localhost:8000, without a query")
	}
	return base, nil
}

// urls returns what is asked for in turn.
func (c *loadCmd) urls(base string, ids []int) []string {
	if c.Batch > 0 {
		return load.Batches(base, ids, c.Batch, c.Requests)
	}
	urls := make([]string, len(ids))
	for i, id := range ids {
		urls[i] = fmt.Sprintf("%s/product/%s/%d", base, c.Endpoint, id)
	}
	return urls
}

// count adds what the replicas counted, or the reason why that is not known. before has
// their statistics from before the load, unless unknown says why they could not be read.
func (out *loadReport) count(ctx context.Context, target load.Target, before load.Stats, unknown error) {
	var counted load.Stats
	if unknown == nil {
		counted, unknown = target.Counted(ctx, before, out.Result)
	}
	switch {
	case unknown == nil:
		out.counted = &counted
		out.Shadow = newWouldSave(counted.Shadow)
		switch {
		case out.batch > 0:
			out.Batches = newBatchImpact(counted.Batches)
		case out.Endpoint == "coalesced":
			out.Impact = newImpact(counted)
		}
		return
	case ctx.Err() != nil:
		out.NotKnown = "the load was broken off"
	default:
		out.NotKnown = strings.TrimPrefix(unknown.Error(), "fleetcall: ")
	}
	fmt.Fprintln(os.Stderr, wrap("fleetcall: what the replicas counted is not known: "+out.NotKnown, columns()))
}

// page returns the content of the report's file.
func (c *loadCmd) page(out loadReport, begun time.Time) *report.Report {
	run := report.Run{Name: c.Endpoint, Result: out.Result, Fleet: out.counted, NotKnown: out.NotKnown}
	setup := []report.Fact{{Name: "Server", Value: out.URL}, {Name: "Endpoint", Value: c.Endpoint}, {Name: "Product ids", Value: c.IDs}}
	if c.Batch > 0 {
		setup = append(setup, report.Fact{Name: "Products a request", Value: strconv.Itoa(c.Batch)})
	}
	if out.BrokenOff {
		setup = append(setup, report.Fact{Name: "Broken off", Value: out.ended()})
	}
	if counted := out.counted; counted != nil {
		replicas := "all replicas"
		if counted.Note != "" {
			replicas = counted.Replica + ", which gave every answer"
		}
		run.Queries, run.Counter = &counted.Database.Queries, replicas+" (database.queries of /stats?scope=fleet); those of other clients are among them"
		setup = append(setup, report.Fact{Name: "Mode", Value: counted.Mode})
	}
	return &report.Report{
		Title: "fleetcall load", Command: c.commandLine(out.URL), Begun: begun, Took: out.Result.Duration,
		Setup: setup, Machine: report.Machine(buildVersion()), Runs: []report.Run{run},
	}
}

// commandLine returns the command that does the same again, without the token.
func (c *loadCmd) commandLine(address string) string {
	words := []string{"fleetcall", "load", "--url=" + address, "--endpoint=" + c.Endpoint, "--ids=" + c.IDs,
		"--requests=" + strconv.Itoa(c.Requests), "--concurrency=" + strconv.Itoa(c.Concurrency), "--format=" + c.Format}
	if c.Batch > 0 {
		words = append(words, "--batch="+strconv.Itoa(c.Batch))
	}
	if c.Reset {
		words = append(words, "--reset")
	}
	return commandLine(append(words, "--report="+c.Report)...)
}

type loadReport struct {
	URL       string       `json:"url"`
	Endpoint  string       `json:"endpoint"`
	BrokenOff bool         `json:"broken_off,omitempty"` // before all requests were sent
	Result    *load.Result `json:"result"`
	Impact    *impact      `json:"impact,omitempty"`
	Batches   *batchImpact `json:"batches,omitempty"`
	Shadow    *wouldSave   `json:"would_have_saved,omitempty"` // in mode shadow
	NotKnown  string       `json:"counts_not_known,omitempty"` // why what the replicas counted is not

	counted  *load.Stats // nil: not known
	requests int         // that were to be sent
	batch    int         // products a request; zero: requests for one
}

// ended says how many requests were sent when the load was broken off.
func (r loadReport) ended() string {
	return fmt.Sprintf("after %s of %s requests", thousands(int64(r.Result.Requests)), thousands(int64(r.requests)))
}

// impact is what coalescing saved during a load, over all replicas.
type impact struct {
	Without   int64  `json:"queries_without_coalescing"`
	With      int64  `json:"queries_with_coalescing"`
	Prevented int64  `json:"queries_prevented"`
	HitRate   string `json:"hit_rate"`
}

func newImpact(s load.Stats) *impact {
	return &impact{Without: s.Hits + s.Misses, With: s.Misses, Prevented: s.Hits, HitRate: percent(s.Hits, s.Hits+s.Misses)}
}

// batchImpact is what coalescing saved during a load of requests for many products.
type batchImpact struct {
	Keys         int64   `json:"products_without_coalescing"`
	QueriedKeys  int64   `json:"products_with_coalescing"`
	KeysSaved    int64   `json:"products_saved"`
	HitRate      string  `json:"hit_rate"`
	Queries      int64   `json:"queries"`
	KeysPerQuery float64 `json:"products_per_query"`
}

func newBatchImpact(s load.BatchStats) *batchImpact {
	b := &batchImpact{Keys: s.Keys, QueriedKeys: s.QueriedKeys, KeysSaved: s.KeysSaved, HitRate: percent(s.KeysSaved, s.Keys), Queries: s.Queries}
	if s.Queries > 0 {
		b.KeysPerQuery = math.Round(float64(s.QueriedKeys)/float64(s.Queries)*10) / 10
	}
	return b
}

func (r loadReport) print(format string) error {
	if format == "json" {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	result := box{title: r.Endpoint + " endpoint"}
	result.addResult(r.Result)
	boxes := []box{result}
	if r.Impact != nil {
		b := box{title: "what coalescing did"}
		b.add("Queries without it", thousands(r.Impact.Without))
		b.add("Queries with it", thousands(r.Impact.With))
		b.add("Queries prevented", thousands(r.Impact.Prevented))
		b.add("Hit rate", r.Impact.HitRate)
		boxes = append(boxes, b)
	}
	if r.Batches != nil {
		b := box{title: "what coalescing did"}
		b.add("Products asked for", thousands(r.Batches.Keys))
		b.add("Products queried", thousands(r.Batches.QueriedKeys))
		b.add("Products saved", thousands(r.Batches.KeysSaved))
		b.add("Hit rate", r.Batches.HitRate)
		b.add("Queries", thousands(r.Batches.Queries))
		b.add("Products a query", fmt.Sprintf("%.1f", r.Batches.KeysPerQuery))
		boxes = append(boxes, b)
	}
	if r.Shadow != nil {
		boxes = append(boxes, r.Shadow.boxes()...)
	}
	for _, b := range boxes {
		for _, line := range b.lines(min(max(columns(), 24), 48)) {
			fmt.Println(line)
		}
	}
	if r.Shadow != nil {
		fmt.Println(wrap(r.Shadow.note(), columns()))
	}
	if r.BrokenOff {
		fmt.Println(wrap("Broken off "+r.ended()+".", columns()))
	}
	if r.NotKnown != "" {
		fmt.Println(wrap("Queries and tiers are not known: "+r.NotKnown+".", columns()))
	}
	for _, counts := range []struct {
		title string
		of    map[string]int
	}{{"Replicas", r.Result.Replicas}, {"Roles", r.Result.Roles}, {"Roles of products", r.Result.KeyRoles}, {"Failures", r.Result.Errors}} {
		if len(counts.of) > 0 {
			fmt.Println(wrap(counts.title+": "+listCounts(counts.of), columns()))
		}
	}
	return nil
}

// parseIDs reads a list like 1-100,7.
func parseIDs(list string) ([]int, error) {
	var ids []int
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		from, err := strconv.ParseInt(first, 10, 32)
		to := from
		if err == nil && isRange {
			to, err = strconv.ParseInt(last, 10, 32)
		}
		if err != nil || from < 1 || to < from {
			return nil, fmt.Errorf("fleetcall: --ids %q: %q is not a product id or a range of them", list, part)
		}
		if int64(len(ids))+to-from >= maxIDs {
			return nil, fmt.Errorf("fleetcall: --ids %q: more than %d ids", list, maxIDs)
		}
		for id := from; id <= to; id++ {
			ids = append(ids, int(id))
		}
	}
	return ids, nil
}
