package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/fleetcall/fleetcall/api"
)

// healthCmd lets a container without a shell check itself.
type healthCmd struct {
	Listen string `name:"listen" env:"LISTEN_ADDR" default:":8000" help:"Address the server of this machine listens on."`
	Admin  string `name:"admin" env:"ADMIN_ADDR" help:"Address where a proxy of this machine tells of its health; empty: it is no proxy."`
}

// Run fails when the server does not answer /readyz with status 200.
func (c *healthCmd) Run(ctx context.Context) error {
	address := cmp.Or(c.Admin, c.Listen)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("fleetcall: listen address %q: %w", address, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return err
	}
	// A proxy from the environment has no business between a server and itself.
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("fleetcall: asking the server for its health: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	var answer api.ReadinessResponse
	if json.NewDecoder(io.LimitReader(resp.Body, 1024)).Decode(&answer) != nil || answer.Status == "" {
		return errors.New("fleetcall: the server is not ready: " + resp.Status)
	}
	return fmt.Errorf("fleetcall: the server is not ready: %s (its log says more)", answer.Status)
}
