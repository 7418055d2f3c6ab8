package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// api is a stand-in for the paid API: it takes half a second, and logs each call that it
// would charge for.
func api(log *slog.Logger, delay time.Duration) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /rate", func(w http.ResponseWriter, r *http.Request) {
		log.InfoContext(r.Context(), "a call is charged", "query", r.URL.RawQuery)
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]float64{"rate": 1.25})
	})
	return mux
}

func serveAPI(ctx context.Context, log *slog.Logger) error {
	listener, err := net.Listen("tcp", cmp.Or(os.Getenv("LISTEN_ADDR"), "localhost:9000"))
	if err != nil {
		return err
	}
	log.Info("the API listens", "address", listener.Addr().String())
	server := &http.Server{Handler: api(log, 500*time.Millisecond), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
