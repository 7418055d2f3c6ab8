package netrig_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/internal/rig/netrig"
)

// The test's own program is what runs in the namespaces, and on a host.
const (
	inside = "FLEETCALL_NETRIG_INSIDE"
	asks   = "FLEETCALL_NETRIG_ASKS" // the address that a host asks
)

func TestMain(m *testing.M) {
	if address := os.Getenv(asks); address != "" {
		fmt.Print(ask(address))
		os.Exit(0)
	}
	if os.Getenv(inside) != "" {
		if err := network(); err != nil {
			_, _ = fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func TestHostsLoseWhatIsDropped(t *testing.T) {
	if missing := netrig.Missing(); missing != "" {
		t.Skipf("left out: network namespaces, which need %s", missing)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), inside+"=1")
	netrig.IntoNamespaces(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestTheMachinesOwnNetworkIsLeftAlone(t *testing.T) {
	if network, err := netrig.Start(); err == nil {
		t.Errorf("%+v was made here", network)
	}
}

// network looks at what comes of a host's questions, and of their answers.
func network() error {
	n, err := netrig.Start()
	if err != nil {
		return err
	}
	host, err := n.Host()
	if err != nil {
		return err
	}
	server, err := net.ListenPacket("udp", net.JoinHostPort(n.Own.IP(), "0"))
	if err != nil {
		return err
	}
	asked := answer(server)
	for _, c := range []struct {
		name            string
		at              *netrig.Host
		drop            []netrig.Direction
		heard, answered bool
	}{
		{"nothing is dropped", host, nil, true, true},
		{"what the host sends", host, []netrig.Direction{netrig.Out}, false, false},
		{"what the host is sent", host, []netrig.Direction{netrig.In}, true, false},
		{"what the other is sent", n.Own, []netrig.Direction{netrig.In}, false, false},
		{"what the other sends", n.Own, []netrig.Direction{netrig.Out}, true, false},
		{"all is healed", host, nil, true, true},
	} {
		if err := c.at.Drop(c.drop...); err != nil {
			return err
		}
		path, args, err := host.Command(os.Args[0])
		if err != nil {
			return err
		}
		cmd := exec.Command(path, args...)
		cmd.Env = append(os.Environ(), asks+"="+server.LocalAddr().String())
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		heard := false
		for len(asked) > 0 {
			heard = <-asked
		}
		if answered := strings.TrimSpace(string(out)) == "answered"; heard != c.heard || answered != c.answered {
			return fmt.Errorf("%s: heard %v, answered %v (%s)", c.name, heard, answered, out)
		}
		if err := c.at.Heal(); err != nil {
			return err
		}
	}
	return server.Close()
}

// answer answers all questions, until the server is closed, and tells of each.
func answer(server net.PacketConn) (asked chan bool) {
	asked = make(chan bool, 100)
	go func() {
		question := make([]byte, 16)
		for {
			size, from, err := server.ReadFrom(question)
			if err != nil {
				return
			}
			asked <- true
			_, _ = server.WriteTo(question[:size], from)
		}
	}()
	return asked
}

// ask asks a few times, and says whether there was an answer.
func ask(address string) string {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = conn.Close() }()
	for range 5 {
		_, sent := conn.Write([]byte("question"))
		_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := conn.Read(make([]byte, 16)); err == nil {
			return "answered"
		} else if sent != nil {
			continue // by the host's own filter
		}
	}
	return "silence"
}
