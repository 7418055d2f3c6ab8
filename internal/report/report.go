// Package report writes what a load measured as one HTML file, which needs no
// other file, no script and no network to be read.
package report

import (
	"crypto/sha256"
	_ "embed" // for the page
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"os"
	"path/filepath"
	"time"

	"fleetcall/internal/load"
)

// Report is one or more runs of a load.
type Report struct {
	Title   string // such as "fleetcall demo"
	Command string // a command line that does the same again, without secrets
	Begun   time.Time
	Took    time.Duration
	Setup   []Fact // what was loaded
	Machine []Fact // where
	Runs    []Run  // at least one
}

// Fact is a name and its value.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Run is one load and what it did to the database.
type Run struct {
	Name    string       `json:"name"` // of the mode or endpoint
	Result  *load.Result `json:"result"`
	Queries *int64       `json:"database_queries,omitempty"` // nil: not known
	Counter string       `json:"queries_counted_by,omitempty"`
	Fleet   *load.Stats  `json:"fleet,omitempty"`   // what the replicas counted; nil: not known
	Verdict string       `json:"verdict,omitempty"` // empty: nothing was promised
	Wrong   bool         `json:"wrong"`             // the verdict is that it is not as promised
}

// MarshalJSON returns the report as one object; durations are milliseconds.
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
		"ms": milliseconds, "thousands": thousands, "counts": counts, "histogram": histogram, "timeline": timeline, "compare": compare,
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
		r, template.CSS(style), //nolint:gosec // embedded, not a user's
		// A file has no headers; this holds all the same.
		"default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'", string(asJSON),
	})
	if err != nil {
		return fmt.Errorf("fleetcall: writing the report: %w", err)
	}
	return nil
}

// File is where a report will be. It is made before the load is run, so that
// one that cannot be written is known in time; until Write, what the path
// named before stays as it was.
type File struct {
	path string
	temp *os.File
}

// Create makes a file beside path.
func Create(path string) (*File, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil, fmt.Errorf("fleetcall: --report %s is a directory", path)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".fleetcall-report-*")
	if err != nil {
		return nil, fmt.Errorf("fleetcall: making the report: %w", err)
	}
	return &File{path: path, temp: temp}, nil
}

// Write writes the report to the path.
func (f *File) Write(r *Report) error {
	if err := r.Write(f.temp); err != nil {
		return err
	}
	if err := f.temp.Chmod(0o644); err != nil {
		return fmt.Errorf("fleetcall: writing the report: %w", err)
	}
	if err := f.temp.Close(); err != nil {
		return fmt.Errorf("fleetcall: writing the report: %w", err)
	}
	if err := os.Rename(f.temp.Name(), f.path); err != nil {
		return fmt.Errorf("fleetcall: writing the report: %w", err)
	}
	return nil
}

// Close removes what was not written.
func (f *File) Close() {
	_ = f.temp.Close()
	_ = os.Remove(f.temp.Name())
}
