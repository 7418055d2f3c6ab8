package api

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// healthTimeout bounds the ping of the database. It is shorter than the timeout of a
// usual health probe.
const healthTimeout = 2 * time.Second

// Readiness is the status in the body of /readyz.
type Readiness string

const (
	Ready    Readiness = "ready"
	Starting Readiness = "starting" // the database has not been asked yet, or the upstream has taken no connection yet
	Refused  Readiness = "refused"  // the database does not take this replica's queries
	Stopping Readiness = "stopping" // Drain was called
)

// ReadinessResponse is the body that /readyz returns.
type ReadinessResponse struct {
	Status Readiness `json:"status"`
}

// Health is the body that /health returns.
type Health struct {
	Status   string      `json:"status"`             // healthy, degraded (a Redis server is down) or unhealthy (the database or upstream is down)
	Database string      `json:"database,omitempty"` // connected, disconnected or refused (it does not take this replica's queries)
	Upstream string      `json:"upstream,omitempty"` // of a proxy, in place of the database: connected or disconnected
	Redis    RedisStatus `json:"redis"`
	Mode     string      `json:"mode"`
	Replica  string      `json:"replica"`
}

func (s *Server) health(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), healthTimeout)
	defer cancel()
	redis := make(chan RedisStatus, 1)
	go func() { redis <- s.config.Redis(ctx) }()
	err := s.ping(ctx)
	answer := Health{Status: "healthy", Redis: <-redis, Mode: s.config.Mode, Replica: s.config.Replica}
	source := &answer.Database
	if s.config.Upstream != nil {
		source = &answer.Upstream
	}
	*source = "connected"
	status := http.StatusOK
	if answer.Redis == RedisDegraded {
		answer.Status = "degraded"
	}
	if err != nil {
		s.log.DebugContext(contextOf(c), "the database or upstream does not answer", "error", err)
		answer.Status, *source = "unhealthy", "disconnected"
		status = http.StatusServiceUnavailable
	}
	if s.config.Readiness() == Refused {
		answer.Status, answer.Database = "unhealthy", "refused"
		status = http.StatusServiceUnavailable
	}
	return c.JSON(status, answer)
}

// ping checks the connection to the database or upstream. Health checks that arrive at the same
// time share one ping: while the pool is full, each ping opens a connection beside the
// pool, and a ping for each request could use up the connections that the other
// replicas need.
func (s *Server) ping(ctx context.Context) error {
	_, _, err := s.pings.Do(ctx, struct{}{}, func(ctx context.Context) (struct{}, error) {
		// The ping has a timeout of its own. Without it, new health checks would join a
		// ping that hangs for as long as they keep coming.
		ctx, cancel := context.WithTimeout(ctx, healthTimeout)
		defer cancel()
		if s.config.Upstream != nil {
			return struct{}{}, s.config.Upstream.ping(ctx)
		}
		return struct{}{}, s.config.Store.Ping(ctx)
	})
	return err
}

// livez reports that the process runs.
func (s *Server) livez(c echo.Context) error {
	return c.JSON(http.StatusOK, map[string]string{"status": "alive"})
}

// readyz reports whether this replica takes requests. It says yes even when the
// database or Redis is down: all replicas share them, so that sending the requests to
// another replica would not help. A database that refuses may refuse this replica alone.
func (s *Server) readyz(c echo.Context) error {
	readiness := s.config.Readiness()
	if s.draining.Load() {
		readiness = Stopping
	}
	status := http.StatusOK
	if readiness != Ready {
		status = http.StatusServiceUnavailable
	}
	return c.JSON(status, ReadinessResponse{readiness})
}
