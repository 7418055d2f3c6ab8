package httpproxy

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strings"

	"github.com/fleetcall/fleetcall/internal/httpheader"
)

// pseudonym is this proxy's name in Via (RFC 9110, section 7.6.3).
const pseudonym = "fleetcall"

// forwarded are the fields by which a proxy tells whom it forwards for.
var forwarded = []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"}

// rewrite makes the request to the upstream of a client's. The path and the query stay as
// they were sent.
func (p *Proxy) rewrite(r *httputil.ProxyRequest) {
	e := exchangeOf(r.In.Context())
	query := r.In.URL.RawQuery
	if r.In.URL.Path == "*" {
		r.Out.URL.Scheme, r.Out.URL.Host = p.config.Upstream.Scheme, p.config.Upstream.Host
	} else {
		r.SetURL(p.config.Upstream)
		r.Out.URL.RawQuery, r.Out.URL.ForceQuery = query, r.In.URL.ForceQuery
	}
	r.Out.Host = r.In.Host
	if p.config.Host != "" {
		r.Out.Host = p.config.Host
	}
	if strings.EqualFold(r.Out.Header.Get("Upgrade"), "h2c") {
		// It is no longer part of HTTP (RFC 9113, section 3.1), and would be a tunnel
		// behind which no rule holds. A server may ignore that it is asked for.
		for _, name := range []string{"Connection", "Upgrade", "Http2-Settings"} {
			r.Out.Header.Del(name)
		}
	}
	trusted := p.trusts(r.In.RemoteAddr)
	if trusted {
		r.Out.Header["X-Forwarded-For"] = r.In.Header["X-Forwarded-For"]
	}
	r.SetXForwarded()
	r.Out.Header.Set("X-Forwarded-Host", normalHost(r.In))
	if trusted {
		for _, name := range forwarded[1:] {
			if values := r.In.Header[name]; len(values) > 0 {
				r.Out.Header[name] = values
			}
		}
	}
	r.Out.Header.Set(httpheader.RequestID, e.id)
	addVia(r.Out.Header, r.In.ProtoMajor, r.In.ProtoMinor)
	if r.Out.Body != nil && r.Out.Body != http.NoBody {
		r.Out.Body = &clientBody{r.Out.Body, e}
	}
}

// normalHost returns the host that the client asked for, in one of the ways to write it:
// requests that differ in what is sent to the upstream are not merged.
func normalHost(r *http.Request) string {
	host := strings.ToLower(r.Host)
	if r.TLS == nil {
		return strings.TrimSuffix(host, ":80")
	}
	return strings.TrimSuffix(host, ":443")
}

// trusts says whether the fields of a proxy at this address are passed on.
func (p *Proxy) trusts(remote string) bool {
	if len(p.config.Trusted) == 0 {
		return false
	}
	peer, err := netip.ParseAddrPort(remote)
	if err != nil {
		return false
	}
	addr := peer.Addr().Unmap().WithZone("")
	for _, prefix := range p.config.Trusted {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// addFields adds to an answer what is each client's own, though the answer may be shared.
func (p *Proxy) addFields(resp *http.Response, e *exchange) {
	resp.Header.Set(httpheader.RequestID, e.id)
	if p.config.Replica != "" {
		resp.Header.Set("X-Replica", p.config.Replica)
	}
	addVia(resp.Header, max(resp.ProtoMajor, 1), resp.ProtoMinor)
}

// addVia adds this proxy to Via, with the version of the protocol that the message came by.
func addVia(h http.Header, major, minor int) {
	version := fmt.Sprintf("%d.%d", major, minor)
	if major > 1 {
		version = fmt.Sprint(major)
	}
	via := append(h["Via"][:len(h["Via"]):len(h["Via"])], version+" "+pseudonym)
	h["Via"] = []string{strings.Join(via, ", ")}
}

// clientBody notes when a client's body cannot be read: then it is not the upstream that
// failed.
type clientBody struct {
	io.ReadCloser
	exchange *exchange
}

func (b *clientBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // a reader returns io.EOF itself
		b.exchange.mu.Lock()
		b.exchange.body = err
		b.exchange.mu.Unlock()
	}
	return n, err
}

func (e *exchange) bodyError() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.body
}
