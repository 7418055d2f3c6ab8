package verify

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

func load(t *testing.T) *chart.Chart {
	t.Helper()
	loaded, err := loader.LoadDir(filepath.Join(deploy, "helm", "fleetcall"))
	if err != nil {
		t.Fatal(err)
	}
	if err := loaded.Validate(); err != nil {
		t.Error(err)
	}
	return loaded
}

// render renders the chart as helm install does: the values are held against the schema,
// and then put into the templates.
func render(t *testing.T, release, values string) (objects, error) {
	t.Helper()
	loaded := load(t)
	set, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	options := chartutil.ReleaseOptions{Name: release, Namespace: "shop", Revision: 1, IsInstall: true}
	merged, err := chartutil.ToRenderValues(loaded, set, options, chartutil.DefaultCapabilities.Copy())
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{Strict: true}.Render(loaded, merged)
	if err != nil {
		return nil, err
	}
	all := objects{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if path.Ext(name) != ".yaml" {
			continue
		}
		if err := all.decode([]byte(files[name])); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, files[name])
		}
	}
	return all, nil
}

func rendered(t *testing.T, release, values string) objects {
	t.Helper()
	all, err := render(t, release, values)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// serveValues switch on all that the plain manifests have.
const serveValues = "monitoring: {enabled: true}\ninitdb: {enabled: true}\n"

func proxyValues(t *testing.T) string { return string(read(t, "helm/proxy-values.yaml")) }

func TestTheChartMakesThePlainManifests(t *testing.T) {
	for name, c := range map[string]struct{ made, plain objects }{
		"serve": {rendered(t, "fleetcall", serveValues), plain(t, serveFiles...)},
		"proxy": {rendered(t, "products", proxyValues(t)), plain(t, "proxy.yaml")},
	} {
		withoutHelm(c.made)
		if job := c.made["Job fleetcall-initdb-1"]; job != nil {
			job.SetName("fleetcall-initdb")
			delete(c.made, "Job fleetcall-initdb-1")
			c.made["Job fleetcall-initdb"] = job
		}
		if made, want := slices.Sorted(maps.Keys(c.made)), slices.Sorted(maps.Keys(c.plain)); !slices.Equal(made, want) {
			t.Errorf("%s: the chart makes %v, the manifests are of %v", name, made, want)
		}
		for key, want := range c.plain {
			if made := c.made[key]; !reflect.DeepEqual(made, want) {
				t.Errorf("%s: %s of the chart is not that of the manifests:\n%s", name, key, difference(t, made, want))
			}
		}
	}
}

// withoutHelm takes away what only a chart can have.
func withoutHelm(all objects) {
	for _, object := range all {
		labels := object.GetLabels()
		delete(labels, "helm.sh/chart")
		delete(labels, "app.kubernetes.io/managed-by")
		if deployment, ok := object.(*apps.Deployment); ok {
			deployment.Spec.Template.Annotations = nil
		}
	}
}

// difference has the lines that only one of two objects has: - those of want, + those of
// made.
func difference(t *testing.T, made, want any) string {
	t.Helper()
	var lines [2][]string
	for i, object := range []any{made, want} {
		text, err := yaml.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		lines[i] = strings.Split(string(text), "\n")
	}
	var differ []string
	for i, sign := range []string{"- ", "+ "} {
		for _, line := range lines[1-i] {
			if !slices.Contains(lines[i], line) {
				differ = append(differ, sign+line)
			}
		}
	}
	return strings.Join(differ, "\n")
}

func TestValuesReachTheObjects(t *testing.T) {
	all := rendered(t, "shop", `
image: {repository: registry.example.com/team/fleetcall, tag: v9}
imagePullSecrets: [{name: registry}]
config: {COALESCE_MODE: local, COALESCE_ADAPTIVE: true, MAX_CONNECTIONS: 2000000, OTEL_BSP_MAX_QUEUE_SIZE: "10"}
secret: {existing: mine}
shutdown: {delaySeconds: 20, graceSeconds: 15}
autoscaling: {enabled: false}
replicas: 5
networkPolicy: {egressPorts: [6380]}
extraEnv: [{name: SSL_CERT_FILE, value: /ca/ca.pem}]
extraVolumes: [{name: ca, configMap: {name: ca}}]
extraVolumeMounts: [{name: ca, mountPath: /ca}]
podAnnotations: {team: shop}
`)
	checkPods(t, all)
	for _, name := range []string{"Secret shop", "HorizontalPodAutoscaler shop", "ServiceMonitor shop", "PrometheusRule shop", "Job shop-initdb-1"} {
		if all[name] != nil {
			t.Errorf("there is a %s", name)
		}
	}
	deployment := of[*apps.Deployment](t, all)
	pod := deployment.Spec.Template.Spec
	main := pod.Containers[0]
	if *deployment.Spec.Replicas != 5 || *pod.TerminationGracePeriodSeconds != 43 || main.Image != "registry.example.com/team/fleetcall:v9" ||
		main.EnvFrom[1].SecretRef.Name != "mine" || pod.ImagePullSecrets[0].Name != "registry" || main.Env[1].Value != "/ca/ca.pem" ||
		main.VolumeMounts[1].MountPath != "/ca" || pod.Volumes[1].ConfigMap.Name != "ca" || deployment.Spec.Template.Annotations["team"] != "shop" {
		t.Errorf("%+v", deployment.Spec)
	}
	data := of[*core.ConfigMap](t, all).Data
	for name, want := range map[string]string{
		"COALESCE_MODE": "local", "COALESCE_ADAPTIVE": "true", "MAX_CONNECTIONS": "2000000", "SHUTDOWN_DELAY": "20s", "SHUTDOWN_GRACE": "15s", "OTEL_BSP_MAX_QUEUE_SIZE": "10",
	} {
		if data[name] != want {
			t.Errorf("%s is %q, want %q", name, data[name], want)
		}
	}
	if ports := of[*networking.NetworkPolicy](t, all).Spec.Egress[1].Ports; len(ports) != 1 || ports[0].Port.IntValue() != 6380 {
		t.Errorf("%+v", ports)
	}
	if hpa := of[*autoscaling.HorizontalPodAutoscaler](t, rendered(t, "shop", "autoscaling: {flights: 25}")); hpa.Spec.Metrics[0].Pods.Target.AverageValue.Value() != 25 {
		t.Errorf("%+v", hpa.Spec.Metrics)
	}
}

func TestAChangedSettingRestartsTheReplicas(t *testing.T) {
	sums := func(values string) map[string]string {
		return of[*apps.Deployment](t, rendered(t, "shop", values)).Spec.Template.Annotations
	}
	same := sums("")
	if again := sums("replicas: 7"); !maps.Equal(same, again) {
		t.Errorf("replicas restart for nothing: %v, %v", same, again)
	}
	for _, changed := range []string{"config: {LOG_LEVEL: debug}", "secret: {values: {ADMIN_TOKEN: abc}}"} {
		if maps.Equal(same, sums(changed)) {
			t.Errorf("%s does not restart the replicas", changed)
		}
	}
}

func TestWrongValuesAreRefused(t *testing.T) {
	for values, because := range map[string]string{
		"replica: 3":                                   "replica",
		"config: {COALESCE_LEASE_TLL: 3s}":             "COALESCE_LEASE_TLL",
		"config: {COALESCE_LEASE_TTL: 3 seconds}":      "COALESCE_LEASE_TTL",
		"config: {COALESCE_LEASE_TTL: 3}":              "COALESCE_LEASE_TTL",
		"config: {COALESCE_MODE: global}":              "COALESCE_MODE",
		"config: {COALESCE_ADAPTIVE: \"yes\"}":         "COALESCE_ADAPTIVE",
		"config: {DATABASE_URL: postgres://db/shop}":   "DATABASE_URL",
		"serve: {DB_POOL_MAX: 0}":                      "DB_POOL_MAX",
		"secret: {values: {REDIS_URI: redis://redis}}": "REDIS_URI",
		"shutdown: {spareSeconds: 1}":                  "spareSeconds",
		"command: fleet":                               "command",
		"autoscaling: {cpu: 80}":                       "cpu",
		"image: {tags: v1}":                            "tags",
		"command: proxy":                               "app.image",
	} {
		if _, err := render(t, "shop", values); err == nil || !strings.Contains(err.Error(), because) {
			t.Errorf("%s: %v, want %s", values, err, because)
		}
	}
}

// Each value of values.yaml is in the schema, and each one in a template.
func TestTheSchemaHasWhatValuesHave(t *testing.T) {
	loaded := load(t)
	var schema struct {
		Properties map[string]struct{ Properties map[string]any }
	}
	if err := yaml.Unmarshal(loaded.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	var templates strings.Builder
	for _, file := range loaded.Templates {
		templates.Write(file.Data)
	}
	for name, value := range loaded.Values {
		property, ok := schema.Properties[name]
		if !ok {
			t.Errorf("the schema has no %s", name)
		}
		if !regexp.MustCompile(`\.Values\.` + name + `\b`).MatchString(templates.String()) {
			t.Errorf("no template uses %s", name)
		}
		inner, _ := value.(map[string]any)
		for key := range inner {
			if property.Properties != nil && property.Properties[key] == nil && !strings.HasPrefix(key, "OTEL_") {
				t.Errorf("the schema has no %s.%s", name, key)
			}
		}
	}
}

func TestTheChartHasTheAlertsOfPrometheus(t *testing.T) {
	chart, err := os.ReadFile(filepath.Join(deploy, "helm", "fleetcall", "files", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if string(chart) != string(read(t, "prometheus/alerts.yml")) {
		t.Error("copy deploy/prometheus/alerts.yml to deploy/helm/fleetcall/files")
	}
}
