package deploy_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/fleetcall/fleetcall/internal/httpproxy"
)

// What Kubernetes itself reads of the manifests is checked by deploy/verify.
func TestTheSidecarInKubernetesReadsItsRules(t *testing.T) {
	for part := range bytes.SplitSeq(read(t, "kubernetes/proxy.yaml"), []byte("\n---\n")) {
		var object struct {
			Kind string
			Data map[string]string
		}
		if err := yaml.Unmarshal(part, &object); err != nil {
			t.Fatal(err)
		}
		rules, ok := object.Data["proxy.yaml"]
		if !ok {
			continue
		}
		file := filepath.Join(t.TempDir(), "proxy.yaml")
		if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
		read, err := httpproxy.ReadRules(file)
		if err != nil || len(read) != 1 {
			t.Errorf("%v, %v", read, err)
		}
		return
	}
	t.Error("proxy.yaml has no rules")
}
