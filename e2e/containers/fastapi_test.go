package containers

import (
	"fmt"
	"testing"
)

func TestTheAppBehindSidecarsOfCompose(t *testing.T) {
	needEngine(t)
	p := newProject(t, "fastapi/docker-compose.yml", "fastapi-limits.yml", "POSTGRES_PASSWORD="+password)
	p.compose(nil, "build")

	services := []string{"app-1", "app-2", "app-3", "sidecar-1", "sidecar-2", "sidecar-3", "nginx"}
	for i, mode := range []struct {
		name, delay string
		queries     int
	}{{"off", "0.05", atOnce}, {"local", "5", 3}, {"distributed", "5", 1}} {
		p.compose([]string{"COALESCE_MODE=" + mode.name, "QUERY_DELAY=" + mode.delay}, "up", "--detach")
		p.healthy(services...)
		if i == 0 {
			p.logStatements()
		}
		before := p.queries()
		p.burst(fmt.Sprintf("/product/normal/%d", i+1))
		got := p.queries() - before
		t.Logf("%d requests at once through nginx and sidecars in mode %s: the apps sent %d queries", atOnce, mode.name, got)
		if got != mode.queries {
			t.Errorf("mode %s: %d queries, want %d", mode.name, got, mode.queries)
		}
	}
	users := map[string]string{"nginx": "101", "redis": "999", "postgres": "70"}
	for _, service := range services[:6] {
		users[service] = "10001"
	}
	p.hardened(users)
}
