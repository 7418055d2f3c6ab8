package api

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// healthLimit is how long /health waits for the database: less than probes do.
const healthLimit = 2 * time.Second

// Health is what /health answers.
type Health struct {
	Status   string      `json:"status"`   // healthy, degraded (without Redis) or unhealthy (without database)
	Database string      `json:"database"` // connected or disconnected
	Redis    RedisStatus `json:"redis"`
	Mode     string      `json:"mode"`
	Replica  string      `json:"replica"`
}

func (s *Server) health(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), healthLimit)
	defer cancel()
	redis := make(chan RedisStatus, 1)
	go func() { redis <- s.config.Redis(ctx) }()
	err := s.ping(ctx)
	answer := Health{Status: "healthy", Database: "connected", Redis: <-redis, Mode: s.config.Mode, Replica: s.config.Replica}
	status := http.StatusOK
	if answer.Redis == RedisDegraded {
		answer.Status = "degraded"
	}
	if err != nil {
		s.log.DebugContext(contextOf(c), "the database does not answer", "error", err)
		answer.Status, answer.Database = "unhealthy", "disconnected"
		status = http.StatusServiceUnavailable
	}
	return c.JSON(status, answer)
}

// ping asks the database for a sign of life, once for all who ask at the same
// time. While the pool is full, each ping is a connection beside it: as many of
// them as there are requests would take the database from all replicas.
func (s *Server) ping(ctx context.Context) error {
	_, _, err := s.pings.Do(ctx, struct{}{}, func(ctx context.Context) (struct{}, error) {
		// One that hangs must not be joined for ever.
		ctx, cancel := context.WithTimeout(ctx, healthLimit)
		defer cancel()
		return struct{}{}, s.config.Store.Ping(ctx)
	})
	return err
}

// live says that the process runs.
func (s *Server) live(c echo.Context) error {
	return c.JSON(http.StatusOK, map[string]string{"status": "alive"})
}

// ready says whether to send requests here. A database or Redis that is down
// does not count: every replica has the same.
func (s *Server) ready(c echo.Context) error {
	if s.draining.Load() {
		return c.JSON(http.StatusServiceUnavailable, map[string]string{"status": "stopping"})
	}
	return c.JSON(http.StatusOK, map[string]string{"status": "ready"})
}
