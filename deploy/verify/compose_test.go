package verify

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

func contains(t *testing.T, file, text string) bool {
	t.Helper()
	return strings.Contains(string(read(t, file)), text)
}

// composed are the variables of a service of a compose file, where the environment sets
// none.
func composed(t *testing.T, file, service string) map[string]string {
	t.Helper()
	var compose struct {
		Services map[string]struct{ Environment map[string]string }
	}
	text := regexp.MustCompile(`\$\{\w+:-([^}]*)\}`).ReplaceAll(read(t, file), []byte("$1"))
	// Of the services that are not asked for, some have lists for maps.
	var all struct{ Services map[string]any }
	if err := yaml.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	one, err := yaml.Marshal(map[string]any{"services": map[string]any{service: all.Services[service]}})
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(one, &compose); err != nil {
		t.Fatal(err)
	}
	if len(compose.Services[service].Environment) == 0 {
		t.Fatalf("%s has no variables for %s", file, service)
	}
	return compose.Services[service].Environment
}

func TestPodsHaveTheVariablesOfCompose(t *testing.T) {
	for name, c := range map[string]struct {
		compose, pod map[string]string
		other, more  []string // those whose values differ, and those that compose has not
	}{
		"serve": {
			composed(t, "docker-compose.yml", "replica-1"), environment(t, plain(t, serveFiles...)),
			[]string{"REPLICA_ID", "SHUTDOWN_DELAY"}, nil,
		},
		"proxy": {
			composed(t, "fastapi/docker-compose.yml", "sidecar-1"), environment(t, plain(t, "proxy.yaml")),
			[]string{"REPLICA_ID", "UPSTREAM"},
			[]string{
				"ADMIN_TOKEN", "COALESCE_ADAPTIVE", "COALESCE_FLIGHT_TIMEOUT", "COALESCE_LEASE_TTL", "COALESCE_MAX_AGE", "COALESCE_REDIS_TIMEOUT",
				"LOG_LEVEL", "MAX_CONNECTIONS", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
				"OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "PPROF_ADDR", "PROXY_CONFIG",
				"SHUTDOWN_DELAY", "UPSTREAM_HOST", "UPSTREAM_TIMEOUT",
			},
		},
	} {
		for variable, want := range c.compose {
			if value, ok := c.pod[variable]; !ok || value != want && !slices.Contains(c.other, variable) {
				t.Errorf("%s: %s is %q (%t), and %q in compose", name, variable, value, ok, want)
			}
		}
		for _, variable := range slices.Sorted(maps.Keys(c.pod)) {
			if _, ok := c.compose[variable]; !ok && !slices.Contains(c.more, variable) {
				t.Errorf("%s: compose has no %s", name, variable)
			}
		}
	}
}

// documented are the variables of a table of docs/configuration.md, but those of files
// with a certificate, which a pod has no default for.
func documented(t *testing.T, heading string) (names []string) {
	t.Helper()
	_, section, _ := strings.Cut(string(read(t, "../docs/configuration.md")), "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+`) \\|").FindAllStringSubmatch(section, -1) {
		for _, name := range regexp.MustCompile("`([A-Z_]+)`").FindAllStringSubmatch(row[1], -1) {
			if !strings.HasPrefix(name[1], "TLS_") {
				names = append(names, name[1])
			}
		}
	}
	if len(names) < 5 {
		t.Fatalf("docs/configuration.md has %v under %s", names, heading)
	}
	return names
}

func TestPodsHaveEveryVariableOfTheDocuments(t *testing.T) {
	replica, proxy := documented(t, "Variables of a replica"), documented(t, "Variables of a proxy")
	for name, want := range map[string][]string{
		"serve.yaml": replica, "the chart: serve": replica,
		"proxy.yaml": append(proxy, shared(replica)...), "the chart: proxy": append(proxy, shared(replica)...),
	} {
		variables := environment(t, deployments(t)[name])
		for _, variable := range want {
			if _, ok := variables[variable]; !ok {
				t.Errorf("%s has no %s", name, variable)
			}
		}
		for variable := range variables {
			known := slices.Contains(want, variable) || strings.HasPrefix(variable, "OTEL_") || variable == "PGPASSWORD"
			if !known {
				t.Errorf("%s has %s, which is no variable", name, variable)
			}
		}
	}
}

// shared are those variables of a replica that a proxy takes, too.
func shared(replica []string) []string {
	return slices.DeleteFunc(slices.Clone(replica), func(name string) bool {
		return name == "DATABASE_URL" || name == "QUERY_DELAY" || strings.HasPrefix(name, "DB_")
	})
}

// The image checks itself by fleetcall health, which asks /readyz.
func TestPodsAreProbedAsTheImageChecksItself(t *testing.T) {
	check := regexp.MustCompile(`HEALTHCHECK --interval=(\S+) --timeout=(\S+) --start-period=(\S+) --retries=\d+ CMD \["/fleetcall", "health"\]`).FindSubmatch(read(t, "Dockerfile"))
	if check == nil {
		t.Fatal("the Dockerfile has no such HEALTHCHECK")
	}
	seconds := func(i int) int32 {
		d, err := time.ParseDuration(string(check[i]))
		if err != nil {
			t.Fatal(err)
		}
		return int32(d.Seconds())
	}
	for name, all := range deployments(t) {
		c := of[*apps.Deployment](t, all).Spec.Template.Spec.Containers[0]
		ready, alive, start := c.ReadinessProbe, c.LivenessProbe, c.StartupProbe
		if ready.HTTPGet.Path != "/readyz" || ready.PeriodSeconds != seconds(1) || ready.TimeoutSeconds != seconds(2) {
			t.Errorf("%s: ready by %+v", name, ready)
		}
		if alive.HTTPGet.Path != "/livez" || alive.TimeoutSeconds != seconds(2) {
			t.Errorf("%s: alive by %+v", name, alive)
		}
		if start.HTTPGet.Path != "/livez" || start.PeriodSeconds*start.FailureThreshold != seconds(3) {
			t.Errorf("%s: started by %+v", name, start)
		}
		if user := of[*apps.Deployment](t, all).Spec.Template.Spec.SecurityContext; !contains(t, "Dockerfile", "\nUSER 10001:10001\n") || *user.RunAsUser != 10001 {
			t.Errorf("%s: another user than the image's: %+v", name, user)
		}
	}
}
