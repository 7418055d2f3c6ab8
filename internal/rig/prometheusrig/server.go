// Package prometheusrig starts private Prometheus servers for tests.
package prometheusrig

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/process"
	"github.com/fleetcall/fleetcall/internal/rig"
)

// Server is a private Prometheus server.
type Server struct {
	URL string // http://host:port

	t      testing.TB
	client *http.Client
}

// Start starts a Prometheus server with a configuration file, and waits until it
// answers. Its data is in a temporary directory. The server is stopped when the test
// ends.
func Start(t testing.TB, config string) *Server {
	t.Helper()
	path := rig.Program(t, "prometheus", "prometheus", "/usr/bin/prometheus", "/usr/local/bin/prometheus", "/opt/homebrew/bin/prometheus")
	dir := rig.TempDir(t, "fleetcall-prometheus-")
	p := &Server{t: t, client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}}
	var err error
	for range 10 { // another process may take a port first
		if err = p.start(path, config, dir); err == nil {
			return p
		}
	}
	t.Fatal(err)
	return nil
}

func (p *Server) start(path, config, dir string) error {
	addr := fmt.Sprintf("127.0.0.1:%d", rig.FreePort(p.t))
	var output rig.Output
	proc, err := process.Start(process.Spec{
		Path: path,
		Args: []string{
			"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "data"),
			"--web.listen-address=" + addr, "--log.level=warn",
		},
		Stdout: &output, Stderr: &output, DeathSignal: syscall.SIGTERM,
	})
	if err != nil {
		return err
	}
	p.URL = "http://" + addr
	// If another process has taken the port, that one's server may answer, but this one
	// ends.
	err = rig.Eventually(proc.Done(), func() error {
		_, err := p.get("/-/ready", nil)
		return err
	})
	if err != nil {
		proc.Kill()
		return fmt.Errorf("fleetcall: starting prometheus on %s: %w\n%s", addr, err, output.String())
	}
	p.t.Cleanup(func() { proc.Stop(syscall.SIGTERM, time.Minute) })
	return nil
}

func (p *Server) get(path string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	return body, err
}

// Get decodes the data of a response of the Prometheus API, for example of
// /api/v1/targets.
func (p *Server) Get(path string, query url.Values, data any) error {
	body, err := p.get(path, query)
	if err != nil {
		return fmt.Errorf("fleetcall: asking prometheus for %s: %w", path, err)
	}
	answer := struct{ Data any }{data}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("fleetcall: asking prometheus for %s: %w", path, err)
	}
	return nil
}

// Sample is one result of a query: the labels, and the time and value.
type Sample struct {
	Metric map[string]string
	Value  [2]any
}

// Query evaluates an expression at this moment.
func (p *Server) Query(expr string) ([]Sample, error) {
	var data struct{ Result []Sample }
	err := p.Get("/api/v1/query", url.Values{"query": {expr}}, &data)
	return data.Result, err
}
