package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// profiles serves the profiles of net/http/pprof.
type profiles struct {
	http   *http.Server
	addr   net.Addr
	served chan error
}

// startProfiles listens on a loopback address only, because profiles show secrets of the
// process, and taking one slows it down.
func startProfiles(ctx context.Context, address string, log *slog.Logger) (*profiles, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: listening on %s: %w", address, err)
	}
	if addr, ok := l.Addr().(*net.TCPAddr); !ok || !addr.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("fleetcall: --pprof-addr (PPROF_ADDR): %s is not a loopback address", l.Addr()), l.Close())
	}
	mux := http.NewServeMux()
	// Without pprof.Cmdline: a command line may have passwords.
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	p := &profiles{
		// There is no WriteTimeout, because the client says how long a profile takes.
		http:   &http.Server{Handler: fromLoopback(mux), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute},
		addr:   l.Addr(),
		served: make(chan error, 1),
	}
	go func() { p.served <- p.http.Serve(l) }()
	log.Info("profiles are served", "address", "http://"+l.Addr().String()+"/debug/pprof/")
	return p, nil
}

// fromLoopback refuses requests for another host's name: a site can make a browser send
// them to this address (DNS rebinding).
func fromLoopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host, _, err := net.SplitHostPort(r.Host); err != nil || !isLoopback(host) {
			http.Error(w, "only for this machine", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// close ends the server, and profiles that are being taken.
func (p *profiles) close() error {
	err := p.http.Close()
	if served := <-p.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
