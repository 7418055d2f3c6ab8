package uvicornrig_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/uvicornrig"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// get returns the body of what url answers.
func get(url string) (string, error) {
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(url)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func write(t *testing.T, app string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.py"), []byte(app), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAKilledAppIsBackAtItsAddress(t *testing.T) {
	dir := write(t, `
import os
from fastapi import FastAPI
app = FastAPI()
@app.get("/")
def index(): return os.environ["GREETING"]
`)
	s := uvicornrig.Start(t, dir, "GREETING=hello")
	if says, err := get(s.URL); says != `"hello"` {
		t.Errorf("the app says %s, %v", says, err)
	}
	addr := s.Addr
	s.Kill()
	if says, err := get(s.URL); err == nil {
		t.Errorf("the killed app says %s", says)
	}
	s.Start()
	if says, err := get("http://" + addr); says != `"hello"` {
		t.Errorf("the app that was started again says %s, %v", says, err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("the app's folder has %v, %v", files, err)
	}
}

func TestAnAppThatDoesNotStartIsAnError(t *testing.T) {
	err := func() (err error) {
		h := &rig.Host{}
		defer rig.Recover(&err)
		defer h.Close()
		uvicornrig.Start(h, write(t, "no Python at all"))
		return nil
	}()
	if err == nil {
		t.Error("it is none")
	}
}
