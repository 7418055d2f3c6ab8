package publish

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheChartAndTheManifestsGetTheVersion(t *testing.T) {
	root := t.TempDir()
	for _, folder := range []string{"deploy/kubernetes", "deploy/helm"} {
		if err := os.CopyFS(filepath.Join(root, folder), os.DirFS(filepath.Join("..", "..", folder))); err != nil {
			t.Fatal(err)
		}
	}
	if err := deployed(root, "v9.8.7-rc.1"); err != nil {
		t.Fatal(err)
	}
	for name, wants := range map[string][]string{
		"deploy/helm/fleetcall/Chart.yaml":       {"\nversion: 9.8.7-rc.1\n", "\nappVersion: v9.8.7-rc.1\n", "\napiVersion: v2\n"},
		"deploy/kubernetes/serve.yaml":           {"image: registry.example.com/fleetcall:v9.8.7-rc.1\n"},
		"deploy/kubernetes/initdb.yaml":          {"image: registry.example.com/fleetcall:v9.8.7-rc.1\n"},
		"deploy/kubernetes/proxy.yaml":           {"image: registry.example.com/fleetcall:v9.8.7-rc.1\n", "image: registry.example.com/products:v1\n"},
		"deploy/kubernetes/monitoring.yaml":      {"kind: PrometheusRule\n"},
		"deploy/kubernetes/secret.yaml":          {"kind: Secret\n"},
		"deploy/helm/fleetcall/values.yaml":      {"repository: registry.example.com/fleetcall\n"},
		"deploy/helm/fleetcall/files/alerts.yml": {"FleetcallReplicaDown"},
	} {
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range wants {
			if !strings.Contains("\n"+string(content), want) {
				t.Errorf("%s lacks %q", name, want)
			}
		}
		before, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(before), "\n") != strings.Count(string(content), "\n") {
			t.Errorf("%s has other lines than before", name)
		}
	}
}
