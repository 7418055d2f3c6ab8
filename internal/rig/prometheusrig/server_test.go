package prometheusrig_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/rig/prometheusrig"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPrometheusAnswersQueriesAndRefusesBadOnes(t *testing.T) {
	config := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(config, []byte("global: {scrape_interval: 1s}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := prometheusrig.Start(t, config)
	if got, err := p.Query("vector(7)"); err != nil || len(got) != 1 || got[0].Value[1] != "7" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := p.Query("vector(7"); err == nil {
		t.Error("half an expression was evaluated")
	}
	began := time.Now()
	var targets struct{ ActiveTargets []any }
	if err := p.Get("/api/v1/targets", nil, &targets); err != nil || len(targets.ActiveTargets) != 0 {
		t.Errorf("%v, %v after %v", targets, err, time.Since(began))
	}
}
