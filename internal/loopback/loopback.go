// Package loopback finds free TCP ports on 127.0.0.1.
package loopback

import (
	"fmt"
	"net"
	"sync"
)

var given = struct {
	sync.Mutex
	ports map[int]bool
}{ports: map[int]bool{}}

// FreePort returns a TCP port of 127.0.0.1 on which nothing listens. The kernel chooses
// it. FreePort returns no port twice in one process. Another process may still take the
// port first, so a caller whose server cannot listen on it should ask for another.
func FreePort() (int, error) {
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, fmt.Errorf("fleetcall: finding a free port: %w", err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("fleetcall: finding a free port: %w", err)
		}
		given.Lock()
		taken := given.ports[port]
		given.ports[port] = true
		given.Unlock()
		if !taken {
			return port, nil
		}
	}
	return 0, fmt.Errorf("fleetcall: finding a free port: the kernel only offers ports given out before")
}
