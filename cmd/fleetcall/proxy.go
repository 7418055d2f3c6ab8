package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/httpproxy"
)

// proxyCmd has all settings of a replica that is a proxy.
type proxyCmd struct {
	replicaFlags

	Upstream        string        `name:"upstream" env:"UPSTREAM" required:"" placeholder:"http://127.0.0.1:8001" help:"Server to send requests to: http://host:port or https://host:port."`
	UpstreamHost    string        `name:"upstream-host" env:"UPSTREAM_HOST" help:"Host that the upstream is told; empty: the one that the client asked for."`
	UpstreamTimeout time.Duration `name:"upstream-timeout" env:"UPSTREAM_TIMEOUT" default:"60s" help:"How long the upstream may take until the header of its answer."`
	Config          string        `name:"config" env:"PROXY_CONFIG" placeholder:"proxy.yaml" help:"File with rules for paths; empty: one rule for all."`
	Admin           string        `name:"admin" env:"ADMIN_ADDR" default:"127.0.0.1:8081" help:"Address of health, statistics, metrics and the live page."`
	TrustedProxies  []string      `name:"trusted-proxies" env:"TRUSTED_PROXIES" default:"127.0.0.0/8,::1/128" help:"Addresses of proxies whose X-Forwarded fields are passed on, comma-separated."`
	TLSCert         string        `name:"tls-cert" env:"TLS_CERT" help:"File with the certificate for clients, and its chain; empty: no TLS."`
	TLSKey          string        `name:"tls-key" env:"TLS_KEY" help:"File with the certificate's key."`
}

// Validate refuses values that cannot work, with an error that names the flag and the
// variable.
func (c *proxyCmd) Validate() error {
	if _, err := c.upstream(); err != nil {
		return err
	}
	if _, _, err := net.SplitHostPort(c.Admin); err != nil {
		return fmt.Errorf("--admin (ADMIN_ADDR): %q is not host:port or :port", c.Admin)
	}
	if _, err := c.trusted(); err != nil {
		return err
	}
	if strings.ContainsAny(c.UpstreamHost, "/@ ") {
		return fmt.Errorf("--upstream-host (UPSTREAM_HOST): %q is not host or host:port", c.UpstreamHost)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("--tls-cert (TLS_CERT) and --tls-key (TLS_KEY): set both or none")
	}
	if err := atLeast(leastTime{"--upstream-timeout (UPSTREAM_TIMEOUT)", c.UpstreamTimeout, time.Millisecond}); err != nil {
		return err
	}
	return c.check()
}

func (c *proxyCmd) upstream() (*url.URL, error) {
	if c.Upstream == "" {
		return nil, errors.New("--upstream (UPSTREAM): name the server to send requests to, such as http://127.0.0.1:8001")
	}
	u, err := url.Parse(c.Upstream)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		// It is not quoted: it may have a password.
		return nil, errors.New("--upstream (UPSTREAM): it is not http://host:port or https://host:port, with a path or without, and without user, query and fragment")
	}
	return u, nil
}

// trusted returns the networks of --trusted-proxies.
func (c *proxyCmd) trusted() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range c.TrustedProxies {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			addr, addrErr := netip.ParseAddr(text)
			if addrErr != nil {
				return nil, fmt.Errorf("--trusted-proxies (TRUSTED_PROXIES): %q is neither an address nor a network such as 10.0.0.0/8", text)
			}
			prefix = netip.PrefixFrom(addr, addr.BitLen())
		}
		all = append(all, prefix)
	}
	return all, nil
}

// Run forwards requests until ctx ends, and then shuts down within the grace period.
func (c *proxyCmd) Run(ctx context.Context) error {
	r, err := newProxy(ctx, c, c.setLog())
	if err != nil {
		return err
	}
	return r.run(ctx)
}

// proxyGroupName is the name of the one Group that a proxy has.
const proxyGroupName = "http"

// newProxy makes a replica that is a proxy. It is no error when the upstream or Redis is
// down: the replica starts, and uses them when they are back.
func newProxy(ctx context.Context, set *proxyCmd, log *slog.Logger) (*replica, error) {
	r, err := prepare(ctx, &set.replicaFlags, log, kind{group: proxyGroupName, runs: "requests are sent"})
	if err != nil {
		return nil, err
	}
	if err := r.serveUpstream(ctx, set); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// serveUpstream gives the replica its proxy, and the server that tells about it.
func (r *replica) serveUpstream(ctx context.Context, set *proxyCmd) error {
	config, certificate, err := r.proxyConfig(set)
	if err != nil {
		return err
	}
	groups, err := groupOf[*coalescehttp.Answer](r, distributed.WithCodec(coalescehttp.Codec()))
	if err != nil {
		return err
	}
	config.Group = func(timeout time.Duration) (coalesce.Group[*coalescehttp.Answer], error) { return groups(timeout) }
	var proxy *httpproxy.Proxy
	counts := &proxyCounts{metrics: newProxyMetrics(r.metrics.registry)}
	counts.upstream = api.NewUpstream(shown(config.Upstream), func(ctx context.Context) error { return proxy.Ping(ctx) })
	r.metrics.registry.MustRegister(upstreamTotals(counts.upstream.Totals))
	config.Counts = counts
	if proxy, err = httpproxy.New(config); err != nil {
		return err
	}
	r.source = func() error { proxy.Close(); return nil }
	r.ready = newUpstreamReadiness(proxy.Ping, r.log)
	admin := r.config()
	admin.Upstream = counts.upstream
	if r.server, err = api.New(admin); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", set.Admin)
	if err != nil {
		return fmt.Errorf("fleetcall: listening on %s: %w", set.Admin, err)
	}
	var handler http.Handler = proxy
	if r.traces != nil {
		handler = r.traces.aroundAll(handler)
	}
	front := httpproxy.NewServer(handler, certificate, r.log)
	// Clients first: what the other address says is of use until the last of them has left.
	r.endpoints = []endpoint{{front, r.listener}, {r.server, l}}
	r.described = []any{"upstream", shown(config.Upstream), "admin", l.Addr().String()}
	return nil
}

// proxyConfig returns those settings of the proxy that come from flags and files.
func (r *replica) proxyConfig(set *proxyCmd) (config httpproxy.Config, certificate *tls.Certificate, err error) {
	config = httpproxy.Config{
		Host: set.UpstreamHost, UpstreamTimeout: set.UpstreamTimeout, FlightTimeout: set.FlightTimeout,
		Replica: r.id, Logger: r.log, Context: api.WithRequestID,
	}
	if config.Upstream, err = set.upstream(); err != nil {
		return config, nil, err
	}
	if config.Trusted, err = set.trusted(); err != nil {
		return config, nil, err
	}
	if set.Config != "" {
		if config.Rules, err = httpproxy.ReadRules(set.Config); err != nil {
			return config, nil, err
		}
	}
	if r.traces != nil {
		config.Around = r.traces.transport
	}
	if set.TLSCert == "" {
		return config, nil, nil
	}
	pair, err := tls.LoadX509KeyPair(set.TLSCert, set.TLSKey)
	if err != nil {
		return config, nil, fmt.Errorf("fleetcall: reading --tls-cert (TLS_CERT) and --tls-key (TLS_KEY): %w", err)
	}
	return config, &pair, nil
}

// shown returns what is shown of an upstream.
func shown(u *url.URL) string { return u.Redacted() }
