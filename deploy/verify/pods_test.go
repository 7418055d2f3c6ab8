package verify

import (
	"maps"
	"reflect"
	"strconv"
	"testing"
	"time"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	psapi "k8s.io/pod-security-admission/api"
	podsecurity "k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// deployments are all ways of deploying replicas that the repository has.
func deployments(t *testing.T) map[string]objects {
	t.Helper()
	return map[string]objects{
		"serve.yaml":         plain(t, serveFiles...),
		"proxy.yaml":         plain(t, "proxy.yaml"),
		"the chart: serve":   rendered(t, "fleetcall", serveValues),
		"the chart: proxy":   rendered(t, "products", proxyValues(t)+"\n"),
		"the chart: default": rendered(t, "x", ""),
	}
}

func TestEveryPodMayRunWherePodsAreRestricted(t *testing.T) {
	for name, all := range deployments(t) {
		t.Run(name, func(t *testing.T) { checkPods(t, all) })
	}
}

// checkPods holds the pods against the Pod Security Standard "restricted", by the code of
// Kubernetes' own admission, and against what it leaves open.
func checkPods(t *testing.T, all objects) {
	t.Helper()
	evaluator, err := podsecurity.NewEvaluator(podsecurity.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := psapi.LevelVersion{Level: psapi.LevelRestricted, Version: psapi.LatestVersion()}
	var pods []core.PodTemplateSpec
	for _, object := range all {
		switch is := object.(type) {
		case *apps.Deployment:
			pods = append(pods, is.Spec.Template)
		case *batch.Job:
			pods = append(pods, is.Spec.Template)
		}
	}
	if len(pods) == 0 {
		t.Fatal("there is no pod")
	}
	for _, pod := range pods {
		for _, result := range evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec) {
			if !result.Allowed {
				t.Errorf("%s: %s", result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
		if pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken || pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks {
			t.Error("a pod has a token of the API, or the variables of Services")
		}
		for _, c := range pod.Spec.Containers {
			if c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem || c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
				t.Errorf("%s may write to its root, or use any memory: %+v", c.Name, c)
			}
		}
	}
}

func TestEveryReferenceHasItsObject(t *testing.T) {
	for name, all := range deployments(t) {
		t.Run(name, func(t *testing.T) {
			deployment := of[*apps.Deployment](t, all)
			pod := deployment.Spec.Template
			selects := func(what string, selector *meta.LabelSelector, of map[string]string) {
				t.Helper()
				s, err := meta.LabelSelectorAsSelector(selector)
				if err != nil || s.Empty() || !s.Matches(labels.Set(of)) {
					t.Errorf("%s selects %v, not %v: %v", what, s, of, err)
				}
			}
			service := of[*core.Service](t, all)
			selects("the Deployment", deployment.Spec.Selector, pod.Labels)
			selects("the Service", &meta.LabelSelector{MatchLabels: service.Spec.Selector}, pod.Labels)
			selects("the PodDisruptionBudget", of[*policy.PodDisruptionBudget](t, all).Spec.Selector, pod.Labels)
			selects("the NetworkPolicy", &of[*networking.NetworkPolicy](t, all).Spec.PodSelector, pod.Labels)
			selects("the spread", pod.Spec.TopologySpreadConstraints[0].LabelSelector, pod.Labels)
			if hpa := of[*autoscaling.HorizontalPodAutoscaler](t, all); hpa.Spec.ScaleTargetRef.Name != deployment.Name || deployment.Spec.Replicas != nil {
				t.Errorf("the HorizontalPodAutoscaler scales %s, which has %v replicas", hpa.Spec.ScaleTargetRef.Name, deployment.Spec.Replicas)
			}
			ports := checkPorts(t, pod.Spec)
			for _, port := range service.Spec.Ports {
				if ports[port.TargetPort.String()] != port.Port {
					t.Errorf("the Service's %s is %s of the pods", port.Name, port.TargetPort.String())
				}
			}
			for _, rule := range of[*networking.NetworkPolicy](t, all).Spec.Ingress {
				if len(rule.From) == 0 || ports[rule.Ports[0].Port.String()] == 0 {
					t.Errorf("the NetworkPolicy lets %v to %v", rule.From, rule.Ports)
				}
			}
			if monitor, ok := all["ServiceMonitor "+deployment.Name].(*monitoring.ServiceMonitor); ok {
				selects("the ServiceMonitor", &monitor.Spec.Selector, service.Labels)
				if port := monitor.Spec.Endpoints[0].Port; ports[port] == 0 || service.Labels[monitor.Spec.JobLabel] != "fleetcall" {
					t.Errorf("it scrapes %s as job %q", port, service.Labels[monitor.Spec.JobLabel])
				}
			}
			checkSources(t, all, pod.Spec)
			if job, ok := all["Job "+deployment.Name+"-initdb"].(*batch.Job); ok {
				checkSources(t, all, job.Spec.Template.Spec)
				if labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(job.Spec.Template.Labels)) {
					t.Error("the Service sends requests to the Job")
				}
			}
		})
	}
}

// checkPorts returns a pod's ports by name, and checks that probes ask one of them.
func checkPorts(t *testing.T, pod core.PodSpec) map[string]int32 {
	t.Helper()
	ports := map[string]int32{}
	for _, c := range pod.Containers {
		for _, port := range c.Ports {
			ports[port.Name] = port.ContainerPort
		}
		for _, probe := range []*core.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
			if probe != nil && ports[probe.HTTPGet.Port.String()] == 0 {
				t.Errorf("%s has no port %s", c.Name, probe.HTTPGet.Port.String())
			}
		}
	}
	return ports
}

// checkSources checks that the ConfigMaps and Secrets that a pod names exist.
func checkSources(t *testing.T, all objects, pod core.PodSpec) {
	t.Helper()
	for _, volume := range pod.Volumes {
		if volume.ConfigMap != nil {
			of[*core.ConfigMap](t, all, volume.ConfigMap.Name)
		}
	}
	for _, c := range pod.Containers {
		for _, from := range c.EnvFrom {
			if from.ConfigMapRef != nil {
				of[*core.ConfigMap](t, all, from.ConfigMapRef.Name)
			} else {
				of[*core.Secret](t, all, from.SecretRef.Name)
			}
		}
		for _, env := range c.Env {
			switch from := env.ValueFrom; {
			case from == nil || from.FieldRef != nil:
			case from.ConfigMapKeyRef != nil:
				if _, ok := of[*core.ConfigMap](t, all, from.ConfigMapKeyRef.Name).Data[from.ConfigMapKeyRef.Key]; !ok {
					t.Errorf("%s is not in the ConfigMap", env.Name)
				}
			case from.SecretKeyRef != nil:
				if _, ok := of[*core.Secret](t, all, from.SecretKeyRef.Name).StringData[from.SecretKeyRef.Key]; !ok {
					t.Errorf("%s is not in the Secret", env.Name)
				}
			}
		}
	}
}

// environment are the variables of a Deployment's first container.
func environment(t *testing.T, all objects) map[string]string {
	t.Helper()
	variables := map[string]string{}
	c := of[*apps.Deployment](t, all).Spec.Template.Spec.Containers[0]
	maps.Copy(variables, of[*core.ConfigMap](t, all, c.EnvFrom[0].ConfigMapRef.Name).Data)
	for name, value := range of[*core.Secret](t, all, c.EnvFrom[1].SecretRef.Name).StringData {
		if _, twice := variables[name]; twice {
			t.Errorf("%s is in the ConfigMap and in the Secret", name)
		}
		variables[name] = value
	}
	for _, env := range c.Env {
		variables[env.Name] = env.Value
	}
	return variables
}

func TestAPodIsGivenTheTimeThatItsShutdownTakes(t *testing.T) {
	for name, all := range deployments(t) {
		t.Run(name, func(t *testing.T) {
			variables, pod := environment(t, all), of[*apps.Deployment](t, all).Spec.Template.Spec
			duration := func(variable string) time.Duration {
				d, err := time.ParseDuration(variables[variable])
				if err != nil {
					t.Fatalf("%s: %v", variable, err)
				}
				return d
			}
			delay, grace := duration("SHUTDOWN_DELAY"), duration("SHUTDOWN_GRACE")
			given := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second
			// docs/operating.md: with five seconds to spare.
			if given < delay+grace+5*time.Second {
				t.Errorf("the pod has %s, and needs %s and %s", given, delay, grace)
			}
			probe := pod.Containers[0].ReadinessProbe
			if notices := time.Duration(probe.PeriodSeconds*probe.FailureThreshold) * time.Second; delay <= notices {
				t.Errorf("SHUTDOWN_DELAY is %s, and the readiness probe takes %s to notice", delay, notices)
			}
			for _, app := range pod.Containers[1:] {
				if sleeps := time.Duration(app.Lifecycle.PreStop.Sleep.Seconds) * time.Second; sleeps < delay+grace || sleeps >= given {
					t.Errorf("the app is told to stop after %s", sleeps)
				}
			}
		})
	}
}

func TestReplicasAreAddedForFlightsAndNotMoreThanTheDatabaseTakes(t *testing.T) {
	for name, all := range deployments(t) {
		hpa := of[*autoscaling.HorizontalPodAutoscaler](t, all)
		metric := hpa.Spec.Metrics[0]
		if len(hpa.Spec.Metrics) != 1 || metric.Type != autoscaling.PodsMetricSourceType || metric.Pods.Target.Type != autoscaling.AverageValueMetricType {
			t.Errorf("%s: %+v", name, hpa.Spec.Metrics)
		}
		if read(t, "../docs/operating.md"); !contains(t, "../docs/operating.md", "| `"+metric.Pods.Metric.Name+"` | gauge |") {
			t.Errorf("%s: there is no gauge %s", name, metric.Pods.Metric.Name)
		}
		pool, ok := environment(t, all)["DB_POOL_MAX"]
		if !ok {
			continue // a proxy has no database
		}
		connections, err := strconv.Atoi(pool)
		if err != nil || connections*int(hpa.Spec.MaxReplicas) > 97 {
			t.Errorf("%s: %d replicas have %s connections each (%v); PostgreSQL's default leaves 97 to users", name, hpa.Spec.MaxReplicas, pool, err)
		}
		if budget := of[*policy.PodDisruptionBudget](t, all).Spec.MaxUnavailable; *budget != intstr.FromInt32(1) || *hpa.Spec.MinReplicas < 2 {
			t.Errorf("%s: of %d replicas %v may be unavailable", name, *hpa.Spec.MinReplicas, budget)
		}
	}
}

func TestTheOperatorGetsTheAlertsOfPrometheus(t *testing.T) {
	var want monitoring.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict(read(t, "prometheus/alerts.yml"), &want); err != nil {
		t.Fatal(err)
	}
	if len(want.Groups) == 0 || len(want.Groups[0].Rules) < 10 {
		t.Fatalf("%+v", want)
	}
	for name, all := range map[string]objects{
		"monitoring.yaml":  plain(t, "monitoring.yaml"),
		"the chart":        rendered(t, "fleetcall", serveValues),
		"the chart: proxy": rendered(t, "products", proxyValues(t)+"\n"),
	} {
		if name == "the chart: proxy" {
			all = rendered(t, "products", "command: proxy\napp: {image: x}\nmonitoring: {enabled: true}")
		}
		if rules := of[*monitoring.PrometheusRule](t, all); !reflect.DeepEqual(rules.Spec, want) {
			t.Errorf("%s has other rules than prometheus/alerts.yml:\n%s", name, difference(t, rules.Spec, want))
		}
	}
}
