package httpproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	readHeaderTimeout = 10 * time.Second
	clientIdleTimeout = 2 * time.Minute // longer than a balancer keeps an idle connection
	maxHeaderBytes    = 64 << 10
)

// Server serves a handler to clients that speak HTTP/1.1 or HTTP/2, with TLS or without.
// There is no limit to how long a request or an answer may take: an upload or a stream may
// last for hours.
type Server struct {
	http    *http.Server
	secure  bool
	end     context.CancelFunc // of what the requests run under
	running sync.WaitGroup     // requests, those that became connections of another protocol among them
}

// NewServer returns a Server that does not serve yet. certificate is nil for one without
// TLS.
func NewServer(handler http.Handler, certificate *tls.Certificate, log *slog.Logger) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{secure: certificate != nil, end: cancel}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(s.secure)
	protocols.SetUnencryptedHTTP2(!s.secure)
	s.http = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.running.Add(1)
			defer s.running.Done()
			handler.ServeHTTP(w, r)
		}),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       clientIdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		Protocols:         protocols,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	if s.secure {
		s.http.TLSConfig = &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12}
	}
	return s
}

// Serve accepts connections from l until Shutdown is called, and then returns nil.
func (s *Server) Serve(l net.Listener) error {
	serve := s.http.Serve
	if s.secure {
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
	if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("fleetcall: serving HTTP: %w", err)
	}
	return nil
}

// Shutdown stops listening, and waits for the requests that are being answered. Connections
// that were upgraded to another protocol, which have no end of their own, are closed after
// that. If ctx ends first, Shutdown closes all connections and returns an error.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = fmt.Errorf("fleetcall: waiting for the last requests: %w", errors.Join(err, s.http.Close()))
	}
	s.end()
	s.running.Wait()
	return err
}
