package deploy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/nginxrig"
)

// composeFile is what these tests look at of a compose file.
type composeFile struct {
	Services map[string]struct {
		Image, Build any
		Environment  map[string]string
		Volumes      []string
		DependsOn    map[string]any `yaml:"depends_on"`
	}
}

func sidecarsCompose(t *testing.T) (c composeFile) {
	t.Helper()
	if err := yaml.Unmarshal(read(t, "fastapi/docker-compose.yml"), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNginxAcceptsTheConfigurationOfTheSidecars(t *testing.T) {
	// The names resolve only in compose's network, and port 8000 may be in use on this
	// machine.
	upstream := regexp.MustCompile(`sidecar-\d`).ReplaceAll(read(t, "fastapi/upstream.conf"), []byte("127.0.0.1"))
	listen := bytes.Replace(read(t, "listen.conf"), []byte("8000"), []byte("127.0.0.1:18000"), 1)
	expectAccepted(t, nginxrig.Files{"nginx.conf": read(t, "fastapi/nginx.conf"), "upstream.conf": nginxrig.Fixed(upstream), "listen.conf": listen})
}

func TestEachWorkerHasASidecarThatNginxKnows(t *testing.T) {
	services := sidecarsCompose(t).Services
	upstream := string(read(t, "fastapi/upstream.conf"))
	for i := 1; i <= 3; i++ {
		app, id := fmt.Sprintf("app-%d", i), fmt.Sprintf("sidecar-%d", i)
		sidecar := services[id]
		if got := sidecar.Environment["UPSTREAM"]; got != "http://"+app+":8001" || sidecar.Environment["REPLICA_ID"] != id {
			t.Errorf("%s has the environment %v", id, sidecar.Environment)
		}
		for name, value := range services["sidecar-1"].Environment {
			if name != "UPSTREAM" && name != "REPLICA_ID" && sidecar.Environment[name] != value {
				t.Errorf("%s: %s is %q, and %q for the first", id, name, sidecar.Environment[name], value)
			}
		}
		if services[app].Environment["DATABASE_URL"] == "" {
			t.Errorf("%s has no database", app)
		}
		if !strings.Contains(upstream, "server "+id+":8000 ") {
			t.Errorf("upstream.conf lacks %s", id)
		}
		if services["nginx"].DependsOn[id] == nil {
			t.Errorf("nginx does not wait for %s", id)
		}
	}
	if n := strings.Count(upstream, "server sidecar-"); n != 3 {
		t.Errorf("upstream.conf has %d sidecars", n)
	}
}

func TestTheSidecarsComposeMountsAndBuildsWhatExists(t *testing.T) {
	mounted := map[string]bool{}
	for name, service := range sidecarsCompose(t).Services {
		for _, volume := range service.Volumes {
			file, at, _ := strings.Cut(volume, ":")
			if strings.HasPrefix(file, ".") {
				read(t, filepath.Join("fastapi", file))
				mounted[strings.TrimSuffix(filepath.Base(at), ":ro")] = true
			}
		}
		if context, ok := service.Build.(string); ok {
			read(t, filepath.Join("fastapi", context, "Dockerfile"))
		}
		for needed := range service.DependsOn {
			if _, ok := sidecarsCompose(t).Services[needed]; !ok {
				t.Errorf("%s depends on %s, which does not exist", name, needed)
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^\s*include (\S+);`).FindAllSubmatch(read(t, "fastapi/nginx.conf"), -1) {
		if !mounted[string(m[1])] {
			t.Errorf("nginx.conf includes %s, which is no volume of nginx", m[1])
		}
	}
}

// TestTheSidecarsKnowEveryVariableOfCompose asks the program, which fails at the first
// setting that it cannot take.
func TestTheSidecarsKnowEveryVariableOfCompose(t *testing.T) {
	help, err := exec.Command("go", "run", "../cmd/fleetcall", "proxy", "--help").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, help)
	}
	for name := range sidecarsCompose(t).Services["sidecar-1"].Environment {
		if !strings.Contains(string(help), "($"+name+")") {
			t.Errorf("fleetcall proxy reads no %s", name)
		}
	}
}

func TestTheSidecarsComposeFileIsValid(t *testing.T) {
	path, err := exec.LookPath("docker")
	if err != nil || exec.Command(path, "compose", "version").Run() != nil {
		t.Skip("docker compose is not installed")
	}
	if out, err := exec.Command(path, "compose", "-f", "fastapi/docker-compose.yml", "config", "--quiet").CombinedOutput(); err != nil {
		t.Errorf("docker compose refuses the file: %v\n%s", err, out)
	}
}

// startSidecarsNginx starts nginx before servers that stand for sidecars, and returns its
// address.
func startSidecarsNginx(t *testing.T, handlers ...http.HandlerFunc) string {
	t.Helper()
	var upstream strings.Builder
	for _, handler := range handlers {
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		fmt.Fprintf(&upstream, "server %s max_fails=0;\n", strings.TrimPrefix(server.URL, "http://"))
	}
	addr := fmt.Sprintf("127.0.0.1:%d", rig.FreePort(t))
	listen, err := fleet.ListenConf(addr)
	if err != nil {
		t.Fatal(err)
	}
	nginxrig.Start(t, nginxrig.Files{"nginx.conf": read(t, "fastapi/nginx.conf"), "listen.conf": listen, "upstream.conf": []byte(upstream.String())}, "http://"+addr+"/ready")
	return addr
}

func TestAGetThatOneSidecarsAppCannotAnswerGoesToTheNext(t *testing.T) {
	asked := make(chan string, 100)
	answer := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/ready" {
				asked <- fmt.Sprint(r.Method, " ", status)
				w.WriteHeader(status)
			}
		}
	}
	nginx := startSidecarsNginx(t, answer(http.StatusBadGateway), answer(http.StatusOK))
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	send := func(method string) (status int) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+nginx+"/page", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	const each = 6 // nginx takes the sidecars in turn: some come to either first
	for range each {
		if status := send(http.MethodGet); status != http.StatusOK {
			t.Errorf("a GET is answered %d", status)
		}
	}
	if n := len(asked); n <= each {
		t.Errorf("%d GETs came to the sidecars %d times: none was sent to the second one", each, n)
	}
	for len(asked) > 0 {
		<-asked
	}
	failed := 0
	for range each {
		if send(http.MethodPost) == http.StatusBadGateway {
			failed++
		}
	}
	if n := len(asked); n != each || failed == 0 {
		t.Errorf("%d POSTs came to the sidecars %d times, and %d failed: each must come to one", each, n, failed)
	}
}

func TestAWebSocketPassesThroughTheSidecarsNginx(t *testing.T) {
	nginx := startSidecarsNginx(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "upgrade" {
			return
		}
		conn, both, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		line, _ := both.ReadString('\n')
		_, _ = io.WriteString(conn, "echo "+line)
	})
	conn, err := net.Dial("tcp", nginx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	_, _ = io.WriteString(conn, "hello\n")
	if line, err := reader.ReadString('\n'); line != "echo hello\n" {
		t.Errorf("the socket answers %q, %v", line, err)
	}
}
