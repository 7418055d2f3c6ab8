package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The text comes first, and neither overwrites the other.
func TestAReportMayGoToStandardOutput(t *testing.T) {
	r := start(t)
	dir := t.TempDir()
	for _, report := range []string{"/dev/stdout", "/dev/fd/1", "out.html"} {
		cmd := command(t, "load -n 4 --url "+r.url+" --report "+report)
		cmd.Dir = dir
		out, err := os.Create(filepath.Join(dir, "out.html"))
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout = out
		if err := cmd.Run(); err != nil {
			t.Error(err)
		}
		_ = out.Close()
		content, err := os.ReadFile(out.Name())
		text, page, found := strings.Cut(string(content), "<!doctype html>")
		if err != nil || !found || !strings.Contains(text, "Latency avg") || !strings.HasSuffix(page, "</html>\n") {
			t.Errorf("%s: %v, %s", report, err, content)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
			t.Errorf("%s: %v, %v", report, err, files)
		}
	}
}
