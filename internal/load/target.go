package load

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Target is a fleetcall server, or the balancer of a fleet.
type Target struct {
	Base       string // base URL, without a path
	AdminToken string // empty: none is sent

	retryDelay time.Duration // zero: defaultRetryDelay
}

const (
	// maxAttempts bounds how often the fleet is asked until its statistics are
	// complete. Right after a load, replicas may be slow to answer. In each attempt,
	// the server waits up to a second for them.
	maxAttempts       = 6
	defaultRetryDelay = 300 * time.Millisecond
)

// Stats has those fields of GET /stats by which a load is judged.
type Stats struct {
	Scope     string  `json:"scope"`
	Replica   string  `json:"replica"`
	Mode      string  `json:"mode"`
	Uptime    float64 `json:"uptime_seconds"`
	Hits      int64   `json:"hits"`
	Misses    int64   `json:"misses"`
	Errors    int64   `json:"errors"`
	Total     int64   `json:"total_requests"`
	Active    int64   `json:"active_calls"`
	Prevented int64   `json:"queries_prevented"`
	Database  struct {
		Queries int64 `json:"queries"`
		Errors  int64 `json:"errors"`
	} `json:"database"`
	Batches BatchStats   `json:"batches"`
	Shadow  *ShadowStats `json:"shadow,omitempty"`
	Tiers   struct {
		Local       *TierStats `json:"local,omitempty"`
		Distributed *TierStats `json:"distributed,omitempty"`
	} `json:"tiers"`

	// The fields below are set only with scope=fleet.

	Replicas []Stats `json:"replicas,omitempty"`
	Missing  int     `json:"missing"`        // live replicas that did not answer
	Note     string  `json:"note,omitempty"` // why the sum may not cover the whole fleet

	asked, answered time.Time // when, by this program's clock
}

// TierStats has the counts of one tier. The local tier has only the first three.
type TierStats struct {
	Requests    int64 `json:"requests"`
	Leaders     int64 `json:"leaders"`
	Unasked     int64 `json:"unasked,omitempty"` // of the leaders, those that did not ask Redis
	Followers   int64 `json:"followers"`
	Cached      int64 `json:"cached"`
	Fallbacks   int64 `json:"fallbacks"`
	Takeovers   int64 `json:"takeovers"`
	LeaseLost   int64 `json:"lease_lost"`
	RedisErrors int64 `json:"redis_errors"`
}

// ErrNoServer is returned by Target.Alive when there is no response.
var ErrNoServer = errors.New("no server answers")

// Alive returns nil if a fleetcall server responds, even if it reports that it is
// unhealthy.
func (t Target) Alive(ctx context.Context) error {
	var health struct {
		Mode string `json:"mode"`
	}
	status, err := t.ask(ctx, http.MethodGet, "/health", &health)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("fleetcall: looking for a server: %w", ctx.Err())
	case status == 0 && err != nil:
		return fmt.Errorf("fleetcall: %w at %s (%s); start one with: fleetcall serve", ErrNoServer, t.name(), cause(err))
	case err != nil || health.Mode == "":
		return fmt.Errorf("fleetcall: what answers at %s is not fleetcall: /health gives status %d", t.name(), status)
	}
	return nil
}

// name returns the target's URL without a password.
func (t Target) name() string {
	u, err := url.Parse(t.Base)
	if err != nil {
		return "the given URL"
	}
	return u.Redacted()
}

// FleetStats returns the sum of the statistics of all live replicas. It asks again a
// few times if a replica does not answer, and returns an error if one is still missing.
// A replica that cannot reach the others returns its own statistics: Note then says so,
// and Replicas has only that one.
func (t Target) FleetStats(ctx context.Context) (Stats, error) {
	return t.fleetStats(ctx, Stats.complete)
}

// FleetStatsOf is FleetStats for a fleet of exactly this many replicas.
func (t Target) FleetStatsOf(ctx context.Context, replicas int) (Stats, error) {
	return t.fleetStats(ctx, func(s Stats) error {
		if n := len(s.Replicas); n != replicas {
			return fmt.Errorf("fleetcall: %d of %d replicas told their statistics", n, replicas)
		}
		return s.complete()
	})
}

// pause returns how long to wait until the fleet is asked again.
func (t Target) pause() time.Duration { return cmp.Or(t.retryDelay, defaultRetryDelay) }

// fleetStats asks until enough returns nil, at most maxAttempts times. It returns the
// last error of enough.
func (t Target) fleetStats(ctx context.Context, enough func(Stats) error) (Stats, error) {
	for try := 1; ; try++ {
		s := Stats{asked: time.Now()}
		status, err := t.ask(ctx, http.MethodGet, "/stats?scope=fleet", &s)
		s.answered = time.Now()
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d", status)
		}
		if err != nil {
			return s, fmt.Errorf("fleetcall: reading the fleet's statistics: %w", err)
		}
		if err = enough(s); err == nil || try == maxAttempts {
			return s, err
		}
		select {
		case <-time.After(t.pause()):
		case <-ctx.Done():
			return s, err
		}
	}
}

// ResetStats sets the statistics of all live replicas to zero. It returns an error if one
// of them refuses.
func (t Target) ResetStats(ctx context.Context) error {
	var answer struct{ Refused []string }
	status, err := t.ask(ctx, http.MethodPost, "/stats/reset?scope=fleet", &answer)
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		err = errors.New("the server wants the right ADMIN_TOKEN")
	case err != nil:
	case status != http.StatusOK:
		err = fmt.Errorf("status %d", status)
	case len(answer.Refused) > 0:
		err = fmt.Errorf("refused by %s: see its log", strings.Join(answer.Refused, ", "))
	}
	if err != nil {
		return fmt.Errorf("fleetcall: resetting the fleet's statistics: %w", err)
	}
	return nil
}

// ask sends a request and decodes the response. The status is zero if there was no
// response.
func (t Target) ask(ctx context.Context, method, path string, answer any) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(t.Base, "/")+path, nil)
	if err != nil {
		return 0, err
	}
	if t.AdminToken != "" {
		req.Header.Set("Authorization", "Bearer "+t.AdminToken)
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return resp.StatusCode, err
	}
	if answer == nil {
		return resp.StatusCode, nil
	}
	if err := json.Unmarshal(body, answer); err != nil {
		return resp.StatusCode, fmt.Errorf("status %d: %w", resp.StatusCode, err)
	}
	return resp.StatusCode, nil
}
