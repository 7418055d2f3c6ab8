// Package report writes what a load measured as one HTML file, which needs no
// other file, no script and no network to be read.
package report

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	_ "embed" // for the page
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fleetcall/fleetcall/internal/load"
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
	Fleet   *load.Stats  `json:"fleet,omitempty"` // what the replicas counted; nil: not known
	// NotKnown says why Queries and Fleet are not.
	NotKnown string `json:"counts_not_known,omitempty"`
	Verdict  string `json:"verdict,omitempty"` // empty: nothing was promised
	Wrong    bool   `json:"wrong"`             // the verdict is that it is not as promised
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
// one that cannot be written is known in time; until Write has the whole report,
// what the path named stays as it was, and keeps its mode.
//
// A symbolic link stays one: the file that it leads to is written. What is no
// regular file, such as a pipe or /dev/null, and what this program's standard
// output or error goes to, is not replaced: the report is written to it.
type File struct {
	out  *os.File
	path string // what out is renamed to when it is whole; empty: it is not
}

// Create opens what path names, or makes a file beside it.
func Create(path string) (*File, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("fleetcall: making the report: %w", err)
	case info.IsDir():
		return nil, fmt.Errorf("fleetcall: --report %s is a directory", path)
	default:
		if out := standard(info); out != nil {
			return &File{out: out}, nil
		}
		if !info.Mode().IsRegular() {
			out, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return nil, fmt.Errorf("fleetcall: making the report: %w", err)
			}
			return &File{out: out}, nil
		}
	}
	path = follow(path)
	dir, _ := filepath.Split(path)
	// Not os.CreateTemp: a new file has the mode that the umask leaves it.
	out, err := os.OpenFile(dir+".fleetcall-report-"+rand.Text(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: making the report: %w", err)
	}
	f := &File{out: out, path: path}
	if info != nil {
		if err := out.Chmod(info.Mode().Perm()); err != nil {
			f.Close()
			return nil, fmt.Errorf("fleetcall: making the report: %w", err)
		}
	}
	return f, nil
}

// standard returns this program's output, if that is where the path leads: of
// a file that is opened again, each writer would overwrite the other's text.
func standard(info fs.FileInfo) *os.File {
	for _, out := range []*os.File{os.Stdout, os.Stderr} {
		if same, err := out.Stat(); err == nil && os.SameFile(info, same) {
			return out
		}
	}
	return nil
}

// follow returns what a symbolic link leads to, and any other path as it is.
func follow(path string) string {
	for range 40 { // as far as Linux goes
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			// Not filepath.Join: it takes ".." for the directory before it, which
			// may be a link, too.
			dir, _ := filepath.Split(path)
			target = dir + target
		}
		path = target
	}
	return path
}

// Write writes the report to the path.
func (f *File) Write(r *Report) error {
	var whole bytes.Buffer
	if err := r.Write(&whole); err != nil {
		return err
	}
	if err := f.write(whole.Bytes()); err != nil {
		return fmt.Errorf("fleetcall: writing the report: %w", err)
	}
	return nil
}

func (f *File) write(text []byte) error {
	if _, err := f.out.Write(text); err != nil || f.path == "" {
		return err
	}
	if err := f.out.Close(); err != nil {
		return err
	}
	return os.Rename(f.out.Name(), f.path)
}

// Close removes what was not written.
func (f *File) Close() {
	if f.out == os.Stdout || f.out == os.Stderr {
		return
	}
	_ = f.out.Close()
	if f.path != "" {
		_ = os.Remove(f.out.Name())
	}
}
