package load

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"
)

// maxDials is how many connections are being opened at one time. It is smaller than a
// server's usual listen queue.
const maxDials = 64

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// connections holds open connections to one address.
type connections struct {
	addr string
	dial dialFunc
	open chan net.Conn
}

// connect opens n connections to the host of a URL.
func connect(ctx context.Context, dial dialFunc, base string, n int) (*connections, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: connecting: %w", err)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	c := &connections{addr: net.JoinHostPort(u.Hostname(), port), dial: dial, open: make(chan net.Conn, n)}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxDials)
	for range n {
		group.Go(func() error {
			conn, err := dial(ctx, "tcp", c.addr)
			if err == nil {
				c.open <- conn
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		c.close()
		return nil, fmt.Errorf("fleetcall: connecting to %s: %w", c.addr, err)
	}
	// The kernel has accepted the last connections, but the server may not have seen
	// them yet.
	time.Sleep(20 * time.Millisecond)
	return c, nil
}

// take returns one of the open connections. When none is left, it opens another.
func (c *connections) take(ctx context.Context, network, addr string) (net.Conn, error) {
	if addr == c.addr {
		select {
		case conn := <-c.open:
			return conn, nil
		default:
		}
	}
	return c.dial(ctx, network, addr)
}

// close closes the connections that were not taken.
func (c *connections) close() {
	for {
		select {
		case conn := <-c.open:
			_ = conn.Close()
		default:
			return
		}
	}
}
