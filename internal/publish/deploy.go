package publish

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var (
	chartVersion = regexp.MustCompile(`(?m)^version: .*$`)
	appVersion   = regexp.MustCompile(`(?m)^appVersion: .*$`)
	imageVersion = regexp.MustCompile(`(?m)(image: \S+/fleetcall):\S+$`)
)

// deployed lets the chart and the manifests of the tree at root take the version's image.
func deployed(root, version string) error {
	files, err := filepath.Glob(filepath.Join(root, "deploy", "kubernetes", "*.yaml"))
	if err != nil {
		return fmt.Errorf("fleetcall: listing the manifests: %w", err)
	}
	for _, name := range append(files, filepath.Join(root, "deploy", "helm", "fleetcall", "Chart.yaml")) {
		content, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("fleetcall: reading what deploys the release: %w", err)
		}
		text := imageVersion.ReplaceAllString(string(content), "${1}:"+version)
		if filepath.Base(name) == "Chart.yaml" {
			text = chartVersion.ReplaceAllString(text, "version: "+strings.TrimPrefix(version, "v"))
			text = appVersion.ReplaceAllString(text, "appVersion: "+version)
		}
		if err := write(name, []byte(text)); err != nil {
			return err
		}
	}
	return nil
}
