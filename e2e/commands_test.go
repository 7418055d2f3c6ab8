package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/loopback"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// expectDemo fails the test unless the demo ended with the verdict "right" in all three
// modes.
func expectDemo(t *testing.T, out string, err error, requests int) {
	t.Helper()
	if err != nil {
		t.Fatalf("the demo: %v\n%s", err, out)
	}
	for _, verdict := range []string{
		fmt.Sprintf(`right  off +%d requests, %d queries`, requests, requests),
		fmt.Sprintf(`right  local +%d requests, [123] quer`, requests),
		fmt.Sprintf(`right  distributed +%d requests, 1 query`, requests),
	} {
		if !regexp.MustCompile(verdict).MatchString(out) {
			t.Errorf("the demo does not say %q:\n%s", verdict, out)
		}
	}
	for line := range strings.Lines(out) {
		if n := len([]rune(strings.TrimRight(line, "\n"))); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

func TestDemoWithEmbeddedParts(t *testing.T) {
	t.Parallel()
	for _, balancer := range []string{"builtin", "nginx"} {
		t.Run(balancer, func(t *testing.T) {
			t.Parallel()
			out, err := run(t, []string{"QUERY_DELAY=1s"}, "demo", "--requests=100", "--balancer="+balancer)
			expectDemo(t, out, err, 100)
		})
	}
}

func TestDemoWithGivenServers(t *testing.T) {
	t.Parallel()
	pg := postgresrig.Start(t)
	redis := redisrig.Start(t)
	out, err := run(t, []string{"QUERY_DELAY=1s", "DATABASE_URL=" + pg.URL(), "REDIS_URL=" + redis.URL()}, "demo", "--requests=100")
	expectDemo(t, out, err, 100)
	if !strings.Contains(out, "pg_stat_user_tables") {
		t.Errorf("the demo does not say where its counts come from:\n%s", out)
	}
}

func TestDemoFailsWhenTheCountsAreWrong(t *testing.T) {
	t.Parallel()
	// With one request at a time there is nothing to coalesce.
	out, err := run(t, []string{"QUERY_DELAY=1ms"}, "demo", "--requests=20", "--concurrency=1", "--balancer=builtin")
	if err == nil || !strings.Contains(out, "WRONG") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestLoadRefusesAServerThatIsNotThere(t *testing.T) {
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	out, err := run(t, nil, "load", "--url", fmt.Sprintf("http://127.0.0.1:%d", port))
	if err == nil || strings.Count(out, "\n") != 1 || !strings.Contains(out, "no server answers") {
		t.Errorf("%v, %q", err, out)
	}
}

// startFleetCommand runs fleetcall fleet until the test ends. No other test may run beside
// it, whose connections could take the port that is chosen here.
func startFleetCommand(t *testing.T) (url string, cmd *exec.Cmd, out *rig.Output) {
	t.Helper()
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	listen := fmt.Sprintf("127.0.0.1:%d", port)
	out = &rig.Output{}
	cmd = exec.Command(binary, "fleet", "--replicas", "2")
	cmd.Env = append(os.Environ(), environment("LISTEN_ADDR="+listen, "DATABASE_URL=", "REDIS_URL=", "COALESCE_MODE=",
		"TMPDIR="+t.TempDir())...) // a fleet that is killed cannot remove its files
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	eventually(t, "the fleet's start", func() bool { return strings.Contains(out.String(), "Ctrl-C stops it.") })
	return "http://" + listen, cmd, out
}

var processIDs = regexp.MustCompile(`\(process (\d+)\)`)

func TestFleetStopsEverythingOnCtrlC(t *testing.T) {
	url, cmd, out := startFleetCommand(t)
	if a := mustGet(t, url+"/product/coalesced/1"); a.status != http.StatusOK {
		t.Errorf("status %d: %s", a.status, a.body)
	}
	report, err := run(t, nil, "load", "--url", url, "-n", "50", "-c", "50", "--ids", "1-5", "--reset", "--format", "json")
	if err != nil {
		t.Fatalf("load: %v\n%s", err, report)
	}
	var r struct {
		Result struct {
			Requests, OK, Failed int
			Replicas             map[string]int
		}
		Impact struct {
			With      int `json:"queries_with_coalescing"`
			Prevented int `json:"queries_prevented"`
		}
	}
	if err := json.Unmarshal([]byte(report), &r); err != nil {
		t.Fatalf("%v\n%s", err, report)
	}
	if r.Result.OK != 50 || r.Result.Failed != 0 || len(r.Result.Replicas) != 2 || r.Impact.With < 5 || r.Impact.With+r.Impact.Prevented != 50 {
		t.Errorf("%+v\n%s", r, report)
	}

	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the fleet ended with %v\n%s", err, out.String())
	}
	expectNothingRuns(t, url, out.String())
}

func TestAKilledFleetLeavesNothingRunning(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("the kernel signals orphans only on Linux")
	}
	url, cmd, out := startFleetCommand(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	expectNothingRuns(t, url, out.String())
}

func expectNothingRuns(t *testing.T, url, out string) {
	t.Helper()
	found := processIDs.FindAllStringSubmatch(out, -1)
	if len(found) < 2 {
		t.Fatalf("%d processes named in %s", len(found), out)
	}
	for _, m := range found {
		eventually(t, "process "+m[1]+" being gone", func() bool {
			stat, err := os.ReadFile("/proc/" + m[1] + "/stat")
			return err != nil || strings.Contains(string(stat), ") Z ")
		})
	}
	eventually(t, "the balancer being gone", func() bool {
		_, err := get(t.Context(), url+"/health")
		return err != nil
	})
}
