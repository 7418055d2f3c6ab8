package nginxrig_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/nginxrig"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNginxServesWhatItsConfigurationSays(t *testing.T) {
	addr := fmt.Sprintf("127.0.0.1:%d", rig.FreePort(t))
	conf := fmt.Sprintf(`pid nginx.pid; events {} http { access_log off; client_body_temp_path body; proxy_temp_path proxy;
		fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi; include server.conf; server { listen %s; } }`, addr)
	files := nginxrig.Files{"nginx.conf": []byte(conf), "server.conf": []byte("default_type text/plain; ")}
	if says, accepted := nginxrig.Check(t, files); !accepted {
		t.Fatal(says)
	}
	if _, accepted := nginxrig.Check(t, nginxrig.Files{"nginx.conf": []byte("nonsense;")}); accepted {
		t.Error("nonsense is accepted")
	}
	nginxrig.Start(t, files, "http://"+addr)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + "/nothing")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("%v, status %d", err, resp.StatusCode)
	}
}
