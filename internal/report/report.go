// Package report writes the measurements of a load as one HTML file that needs no other
// file, no script and no network.
package report

import (
	"crypto/sha256"
	_ "embed" // for the go:embed directives below
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"time"

	"github.com/fleetcall/fleetcall/internal/load"
)

// Report describes one or more runs of a load.
type Report struct {
	Title   string // such as "fleetcall demo"
	Command string // a command line that runs the same load again, without secrets
	Begun   time.Time
	Took    time.Duration
	Setup   []Fact // of the load
	Machine []Fact // on which it ran
	Runs    []Run  // at least one
}

// Fact is a line of a table: a name and a value.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Run is one run of a load, with its effect on the database.
type Run struct {
	Name    string       `json:"name"` // the mode or the endpoint
	Result  *load.Result `json:"result"`
	Queries *int64       `json:"database_queries,omitempty"` // nil: unknown
	Counter string       `json:"queries_counted_by,omitempty"`
	Fleet   *load.Stats  `json:"fleet,omitempty"` // the replicas' own counts; nil: unknown
	// NotKnown says why Queries and Fleet are unknown.
	NotKnown string `json:"counts_not_known,omitempty"`
	Verdict  string `json:"verdict,omitempty"` // empty: the run has no expected counts
	Wrong    bool   `json:"wrong"`             // the counts are not those expected
}

// MarshalJSON returns the report as one object, with durations in milliseconds.
func (r *Report) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Title   string    `json:"title"`
		Command string    `json:"command"`
		Begun   time.Time `json:"begun"`
		Took    int64     `json:"took_ms"`
		Setup   []Fact    `json:"setup"`
		Machine []Fact    `json:"machine"`
		Runs    []Run     `json:"runs"`
	}{r.Title, r.Command, r.Begun, r.Took.Milliseconds(), r.Setup, r.Machine, r.Runs})
}

var (
	//go:embed report.html
	source string
	//go:embed report.css
	style string

	page = template.Must(template.New("report").Funcs(template.FuncMap{
		"ms": milliseconds, "thousands": thousands, "counts": counts, "histogram": histogram, "timeline": timeline, "compare": comparisons,
		"saved": saved, "first": firstKeys,
	}).Parse(source))
)

// Write writes the report as HTML.
func (r *Report) Write(w io.Writer) error {
	asJSON, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("fleetcall: writing the report: %w", err)
	}
	sum := sha256.Sum256([]byte(style))
	err = page.Execute(w, struct {
		*Report
		Style  template.CSS
		Policy string
		JSON   string
	}{
		r, template.CSS(style), //nolint:gosec // the style is embedded and holds nothing that a user wrote
		// A file has no HTTP headers, so the page itself carries the policy.
		"default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'", string(asJSON),
	})
	if err != nil {
		return fmt.Errorf("fleetcall: writing the report: %w", err)
	}
	return nil
}
