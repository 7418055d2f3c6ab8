package containers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// project is a compose file, run under a name of its own.
type project struct {
	t     testing.TB
	name  string
	files []string // -f and a name, again and again
	env   []string
}

// image is the name of the image that the tests build, or the start of it.
const image = "fleetcall-containers-test"

// newProject returns a project of a compose file in deploy, with more variables. limits is a
// file of testdata for an engine that may not raise the number of open files.
func newProject(t testing.TB, file, limits string, env ...string) *project {
	p := &project{t: t, name: fmt.Sprintf("fleetcall-test-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6), files: []string{"-f", "../../deploy/" + file}}
	// An engine in a machine that is one itself may lack the right to raise a limit.
	if probe := exec.Command("docker", "run", "--rm", "--ulimit", "nofile=65536", "alpine:3.22", "true"); probe.Run() != nil {
		t.Log("the engine may not raise the number of open files: with testdata/" + limits)
		p.files = append(p.files, "-f", "testdata/"+limits)
	}
	// The engine chooses the ports.
	p.env = append(os.Environ(), "FLEETCALL_IMAGE="+image, "FASTAPI_IMAGE="+image+"-fastapi", "FLEETCALL_PORT=0", "FASTAPI_PORT=0", "PROMETHEUS_PORT=0", "GRAFANA_PORT=0")
	p.env = append(p.env, env...)
	t.Cleanup(p.remove)
	return p
}

// compose runs a command of compose, with more variables of the environment than the
// project's own.
func (p *project) compose(env []string, args ...string) string {
	p.t.Helper()
	out, err := p.try(env, args...)
	if err != nil {
		p.t.Fatalf("docker compose %s: %v\n%s\n%s", strings.Join(args, " "), err, out, p.state())
	}
	return out
}

func (p *project) try(env []string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", slices.Concat([]string{"compose", "--ansi", "never", "-p", p.name}, p.files, args)...)
	cmd.Env = append(p.env, env...)
	var output, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &errors
	err := cmd.Run()
	if err != nil {
		return output.String() + errors.String(), err
	}
	return output.String(), nil
}

// state is what is to be seen of the project when something went wrong.
func (p *project) state() string {
	list, _ := p.try(nil, "ps", "-a")
	logs, _ := p.try(nil, "logs", "--tail", "15")
	return list + "\n" + logs
}

// remove removes all that the project made, and fails the test if something is left.
func (p *project) remove() {
	if out, err := p.try(nil, "--profile", "monitoring", "down", "--volumes", "--remove-orphans", "--timeout", "20"); err != nil {
		p.t.Errorf("docker compose down: %v\n%s", err, out)
	}
	label := "label=com.docker.compose.project=" + p.name
	for _, list := range [][]string{{"ps", "-aq"}, {"network", "ls", "-q"}, {"volume", "ls", "-q"}} {
		if left := docker(p.t, append(list, "--filter", label)...); left != "" {
			p.t.Errorf("docker %s: these are left: %s", strings.Join(list, " "), left)
		}
	}
}

// docker runs a command of the engine's client and returns what it prints.
func docker(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("docker", args...).CombinedOutput()
	if err != nil {
		t.Errorf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// address is where a service's port is reached from this machine.
func (p *project) address(service, port string) string {
	p.t.Helper()
	_, number, _ := strings.Cut(strings.TrimSpace(p.compose(nil, "port", service, port)), ":")
	if i := strings.LastIndexByte(number, ':'); i >= 0 {
		number = number[i+1:]
	}
	return "http://127.0.0.1:" + number
}

// container is what the engine says of a service's container.
type container struct {
	ID    string `json:"Id"`
	State struct {
		Pid    int
		Health *struct{ Status string }
	}
	HostConfig struct {
		ReadonlyRootfs bool
		CapDrop        []string
		SecurityOpt    []string
	}
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
	}
}

func (p *project) container(service string) container {
	p.t.Helper()
	id := strings.TrimSpace(p.compose(nil, "ps", "-aq", service))
	var found []container
	if err := json.Unmarshal([]byte(docker(p.t, "inspect", id)), &found); err != nil || len(found) != 1 {
		p.t.Fatalf("docker inspect %s of %s: %v", id, service, err)
	}
	return found[0]
}

func (c container) address() string {
	for _, n := range c.NetworkSettings.Networks {
		return n.IPAddress
	}
	return ""
}

// status returns the fields of /proc/PID/status of the container's first process.
func (c container) status(t testing.TB) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(c.State.Pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		name, values, _ := strings.Cut(line, ":")
		fields[name] = strings.Fields(values)
	}
	return fields
}

// sql has PostgreSQL run a statement, by its own client and its own socket.
func (p *project) sql(statement string) string {
	p.t.Helper()
	return strings.TrimSpace(p.compose(nil, "exec", "-T", "postgres", "psql", "-qtA", "-v", "ON_ERROR_STOP=1", "-U", "fleetcall", "-d", "fleetcall", "-c", statement))
}

// logStatements has PostgreSQL log what queries counts.
func (p *project) logStatements() {
	p.t.Helper()
	p.sql("ALTER SYSTEM SET log_statement = 'all'")
	p.sql("SELECT pg_reload_conf()")
}

// queries is how many statements with FROM products PostgreSQL's log has.
func (p *project) queries() int {
	p.t.Helper()
	log := p.compose(nil, "logs", "--no-log-prefix", "--no-color", "postgres")
	n := 0
	for line := range strings.Lines(log) {
		if (strings.Contains(line, "LOG:  execute ") || strings.Contains(line, "LOG:  statement: ")) && strings.Contains(line, "FROM products") {
			n++
		}
	}
	return n
}

// eventually tries until it succeeds, for two minutes at most.
func eventually(t testing.TB, what string, try func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// client keeps no connection, so that each request may go to any replica.
func client(atOnce int) *http.Client {
	return &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: atOnce}}
}
