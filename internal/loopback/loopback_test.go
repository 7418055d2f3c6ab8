package loopback_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/fleetcall/fleetcall/internal/loopback"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFreePortsAreDistinctAndCanBeListenedOn(t *testing.T) {
	seen := map[int]bool{}
	for range 50 {
		port, err := loopback.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] {
			t.Fatalf("port %d given twice", port)
		}
		seen[port] = true
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
