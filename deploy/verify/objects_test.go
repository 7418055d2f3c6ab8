package verify

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// kinds makes an empty object of each kind that may be deployed, by its version and kind.
var kinds = map[string]func() meta.Object{
	"v1 ConfigMap":                           func() meta.Object { return new(core.ConfigMap) },
	"v1 Secret":                              func() meta.Object { return new(core.Secret) },
	"v1 Service":                             func() meta.Object { return new(core.Service) },
	"apps/v1 Deployment":                     func() meta.Object { return new(apps.Deployment) },
	"batch/v1 Job":                           func() meta.Object { return new(batch.Job) },
	"autoscaling/v2 HorizontalPodAutoscaler": func() meta.Object { return new(autoscaling.HorizontalPodAutoscaler) },
	"policy/v1 PodDisruptionBudget":          func() meta.Object { return new(policy.PodDisruptionBudget) },
	"networking.k8s.io/v1 NetworkPolicy":     func() meta.Object { return new(networking.NetworkPolicy) },

	"monitoring.coreos.com/v1 ServiceMonitor": func() meta.Object { return new(monitoring.ServiceMonitor) },
	"monitoring.coreos.com/v1 PrometheusRule": func() meta.Object { return new(monitoring.PrometheusRule) },
}

// objects are those of some manifests, by kind and name.
type objects map[string]meta.Object

// decode adds the objects of a YAML text. It refuses a field that its type does not have,
// and one that is there twice.
func (o objects) decode(text []byte) error {
	for document := range strings.SplitSeq("\n"+string(text), "\n---\n") {
		document := []byte(document + "\n")
		var is meta.TypeMeta
		if err := yaml.Unmarshal(document, &is); err != nil {
			return err
		}
		if is.Kind == "" && len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		empty, ok := kinds[is.APIVersion+" "+is.Kind]
		if !ok {
			return fmt.Errorf("an object of kind %q in %q", is.Kind, is.APIVersion)
		}
		object := empty()
		if err := yaml.UnmarshalStrict(document, object); err != nil {
			return fmt.Errorf("%s: %w", is.Kind, err)
		}
		name := is.Kind + " " + object.GetName()
		if o[name] != nil {
			return fmt.Errorf("there are two of %s", name)
		}
		o[name] = object
	}
	return nil
}

// of is the one object of a type, or the one of that name.
func of[T meta.Object](t *testing.T, all objects, name ...string) T {
	t.Helper()
	var found []T
	for _, object := range all {
		if is, ok := object.(T); ok && (len(name) == 0 || object.GetName() == name[0]) {
			found = append(found, is)
		}
	}
	if len(found) != 1 {
		t.Fatalf("there are %d of %T %v", len(found), *new(T), name)
	}
	return found[0]
}

// deploy is the folder of what is tested.
const deploy = ".."

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deploy, name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// plain are the manifests of deploy/kubernetes in these files.
func plain(t *testing.T, files ...string) objects {
	t.Helper()
	all := objects{}
	for _, file := range files {
		if err := all.decode(read(t, "kubernetes/"+file)); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	return all
}

// serveFiles have all that replicas of fleetcall serve are made of.
var serveFiles = []string{"secret.yaml", "serve.yaml", "initdb.yaml", "monitoring.yaml"}

func TestEveryManifestIsReadStrictly(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(deploy, "kubernetes", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Logf("%s: %d objects", filepath.Base(file), len(plain(t, filepath.Base(file))))
	}
	if len(files) != len(serveFiles)+1 {
		t.Errorf("deploy/kubernetes has %v", files)
	}
	service := string(read(t, "kubernetes/serve.yaml"))
	for _, wrong := range [][2]string{
		{"readinessProbe:", "readynessProbe:"},
		{"maxUnavailable: 1", "maxUnavailable: 1\n  maxUnavailable: 2"},
		{"containerPort: 8000", "containerPort: http"},
		{"kind: Service\n", "kind: Servise\n"},
	} {
		if !strings.Contains(service, wrong[0]) {
			t.Fatalf("serve.yaml has no %q", wrong[0])
		}
		if err := (objects{}).decode([]byte(strings.Replace(service, wrong[0], wrong[1], 1))); err == nil {
			t.Errorf("%q is taken for %q", wrong[1], wrong[0])
		}
	}
}
