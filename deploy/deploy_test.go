package deploy_test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/deploy"
	"github.com/fleetcall/fleetcall/internal/rig/nginxrig"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func expectAccepted(t *testing.T, files nginxrig.Files) {
	t.Helper()
	says, accepted := nginxrig.Check(t, files)
	if !accepted || strings.Contains(says, "[emerg]") || strings.Contains(says, "[warn] duplicate") {
		t.Errorf("nginx refuses the configuration:\n%s", says)
	}
}

func TestNginxAcceptsTheConfigurationOfCompose(t *testing.T) {
	// The replicas' names resolve only in compose's network, and port 8000 may be in
	// use on this machine.
	upstream := regexp.MustCompile(`replica-\d`).ReplaceAll(read(t, "upstream.conf"), []byte("127.0.0.1"))
	listen := bytes.Replace(read(t, "listen.conf"), []byte("8000"), []byte("127.0.0.1:18000"), 1)
	expectAccepted(t, nginxrig.Files{"nginx.conf": deploy.NginxConf, "upstream.conf": nginxrig.Fixed(upstream), "listen.conf": listen})
}

func TestNginxAcceptsTheConfigurationOfTheFleetRunner(t *testing.T) {
	expectAccepted(t, nginxFiles(t, deploy.NginxConf, "127.0.0.1:18001", "127.0.0.1:18002", "127.0.0.1:18003"))
}

func TestComposeMountsWhatNginxIncludes(t *testing.T) {
	compose := string(read(t, "docker-compose.yml"))
	for _, m := range regexp.MustCompile(`(?m)^\s*include (\S+);`).FindAllSubmatch(deploy.NginxConf, -1) {
		name := string(m[1])
		read(t, name)
		if mount := "./" + name + ":/etc/nginx/" + name + ":ro"; !strings.Contains(compose, mount) {
			t.Errorf("docker-compose.yml lacks the volume %s", mount)
		}
	}
	for _, m := range regexp.MustCompile(`server (\S+):8000`).FindAllSubmatch(read(t, "upstream.conf"), -1) {
		if !strings.Contains(compose, "\n  "+string(m[1])+":\n") {
			t.Errorf("docker-compose.yml lacks the service %s", m[1])
		}
	}
}

// variables are the environment variables of the program, as the documents list them.
var variables = []string{
	"LISTEN_ADDR", "DATABASE_URL", "REDIS_URL", "COALESCE_MODE", "REPLICA_ID", "QUERY_DELAY", "DB_POOL_MIN", "DB_POOL_MAX", "DB_POOL_WAIT",
	"COALESCE_NAMESPACE", "COALESCE_LEASE_TTL", "COALESCE_FLIGHT_TIMEOUT", "COALESCE_MAX_AGE", "COALESCE_ADAPTIVE", "COALESCE_REDIS_TIMEOUT",
	"SHUTDOWN_DELAY", "SHUTDOWN_GRACE", "MAX_CONNECTIONS", "PPROF_ADDR", "ADMIN_TOKEN", "LOG_LEVEL", "LOG_FORMAT",
	"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES",
	"OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG",
}

func TestEnvExampleAndComposeNameEveryVariable(t *testing.T) {
	var named []string
	lines := bufio.NewScanner(bytes.NewReader(read(t, ".env.example")))
	for lines.Scan() {
		if name, _, ok := strings.Cut(lines.Text(), "="); ok && !strings.HasPrefix(name, "#") {
			named = append(named, name)
		}
	}
	slices.Sort(named)
	compose := string(read(t, "docker-compose.yml"))
	want := slices.Clone(variables)
	for _, m := range regexp.MustCompile(`\$\{(\w+)`).FindAllStringSubmatch(compose, -1) {
		want = append(want, m[1])
	}
	slices.Sort(want)
	want = slices.Compact(want)
	if !slices.Equal(named, want) {
		t.Errorf(".env.example names %v, want %v", named, want)
	}
	for _, name := range variables {
		if !strings.Contains(compose, name+": ") {
			t.Errorf("docker-compose.yml does not set %s", name)
		}
	}
}

func TestComposeFileIsValid(t *testing.T) {
	path, err := exec.LookPath("docker")
	if err != nil || exec.Command(path, "compose", "version").Run() != nil {
		t.Skip("docker compose is not installed")
	}
	if out, err := exec.Command(path, "compose", "-f", "docker-compose.yml", "config", "--quiet").CombinedOutput(); err != nil {
		t.Errorf("docker compose refuses the file: %v\n%s", err, out)
	}
}
