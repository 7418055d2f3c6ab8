package browserrig_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/internal/rig/browserrig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Tests that expect no console errors prove something only if errors are recorded.
func TestConsoleErrorsAreRecordedAndNothingIsLeft(t *testing.T) {
	before, err := filepath.Glob(filepath.Join(os.TempDir(), "fleetcall-browser-*"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/policy":
			w.Header().Set("Content-Security-Policy", "default-src 'none'")
			fmt.Fprint(w, "<style>p{color:red}</style><script>1</script><p>text")
		case "/exception":
			fmt.Fprint(w, "<script>null.x</script>")
		case "/console":
			fmt.Fprint(w, "<script>console.error('a word')</script>")
		case "/fine":
			fmt.Fprint(w, "<!doctype html><link rel=icon href=data:,><p>fine")
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	b, err := browserrig.Start()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/policy": "security", "/exception": "exception", "/console": "console", "/nothing": "network", "/fine": ""} {
		p, err := b.Open(server.URL+path, browserrig.View{})
		if err != nil {
			t.Fatal(err)
		}
		// The errors of loading the page have been recorded before this is true.
		if err := p.WaitFor("document.readyState === 'complete'"); err != nil {
			t.Error(err)
		}
		heard := slices.ContainsFunc(p.ConsoleErrors(), func(c browserrig.ConsoleError) bool { return c.Source == want })
		if want == "" && len(p.ConsoleErrors()) != 0 || want != "" && !heard {
			t.Errorf("%s: %v", path, p.ConsoleErrors())
		}
		p.Close()
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	after, err := filepath.Glob(filepath.Join(os.TempDir(), "fleetcall-browser-*"))
	if err != nil || len(after) > len(before) {
		t.Errorf("directories are left: %v, %v", after, err)
	}
	for _, file := range first(filepath.Glob("/proc/[0-9]*/cmdline")) {
		if line, err := os.ReadFile(file); err == nil && strings.Contains(string(line), b.Dir()) {
			t.Errorf("a process is left: %s", line)
		}
	}
}

func first(files []string, _ error) []string { return files }
