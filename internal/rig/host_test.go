package rig_test

import (
	"net"
	"testing"

	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAHostEndsItsServersAndPanicsWithWhatFails(t *testing.T) {
	start := func(args ...string) (server *redisrig.Server, err error) {
		h := &rig.Host{}
		defer rig.Recover(&err)
		defer h.Close()
		server = redisrig.Start(h, args...)
		return server, dial(server.Addr)
	}
	server, err := start()
	if err != nil {
		t.Fatal(err)
	}
	if dial(server.Addr) == nil {
		t.Error("the server runs on after Close")
	}
	if _, err := start("--no-such-setting", "1"); err == nil {
		t.Error("a server that does not start is no error")
	}
}

func dial(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		_ = conn.Close()
	}
	return err
}
