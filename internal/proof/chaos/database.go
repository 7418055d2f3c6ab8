package chaos

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"
)

const (
	databaseKilled = "PostgreSQL killed"

	queryDelay = 500 * time.Millisecond
	poolWait   = 2 * time.Second
	burstSize  = 30
	// recoveryLimit is when a fleet whose database is back must answer.
	recoveryLimit = 30 * time.Second
)

// programs is a fleet of the fleetcall program, whose functions are queries.
type programs struct {
	postgres *postgresrig.Server
	fleet    *fleet.Fleet
	client   *http.Client
	row      Row
}

// killDatabase kills the database of a fleet of the program under bursts of requests, a
// number of times, and returns what it saw.
func (c *campaign) killDatabase(ctx context.Context, times int) (row Row, err error) {
	p := &programs{postgres: postgresrig.Start(c.host), client: &http.Client{Timeout: recoveryLimit}}
	defer p.client.CloseIdleConnections()
	fill := exec.CommandContext(ctx, c.config.Binary, "initdb")
	fill.Env = append(os.Environ(), "DATABASE_URL="+p.postgres.URL())
	if output, err := fill.CombinedOutput(); err != nil {
		return row, fmt.Errorf("chaos: filling the database: %w\n%s", err, output)
	}
	p.fleet, err = fleet.Start(ctx, fleet.Config{
		Binary: c.config.Binary, Balancer: fleet.BalancerBuiltin,
		DatabaseURL: p.postgres.URL(), RedisURL: c.redis.URL(),
		Env: []string{"QUERY_DELAY=" + queryDelay.String(), "DB_POOL_WAIT=" + poolWait.String(), "COALESCE_NAMESPACE=programs"},
	})
	if err != nil {
		return row, err
	}
	defer func() {
		if closed := p.fleet.Close(); err == nil {
			err = closed
		}
	}()
	const bound = poolWait + queryDelay
	p.row = Row{Fault: databaseKilled, Bound: "DB_POOL_WAIT + query", Limit: bound, ArrivingLimit: bound, ArrivingBound: "DB_POOL_WAIT + query"}
	random := stream(c.config.Seed, databaseKilled)
	for range times {
		if err := p.episode(ctx, 1+random.IntN(50), between(random, queryDelay/5, queryDelay*3/5)); err != nil {
			return row, err
		}
	}
	p.row.sum()
	return p.row, nil
}

// episode kills the database while a burst waits for a query of it, sends a burst
// while it is gone, and one when it is back.
func (p *programs) episode(ctx context.Context, product int, after time.Duration) error {
	p.row.Injected++
	waiting := p.burst(ctx, product)
	select {
	case <-time.After(after):
	case <-ctx.Done():
	}
	killed := time.Now()
	p.postgres.Stop()
	// On a slow machine its query may have been answered before.
	p.judge(<-waiting, killed, &p.row.Waits, http.StatusOK, http.StatusServiceUnavailable)
	p.judge(<-p.burst(ctx, product), time.Time{}, &p.row.Arriving, http.StatusServiceUnavailable)
	p.postgres.Start()
	back := time.Now()
	for answered := false; !answered; {
		if time.Since(back) > recoveryLimit {
			return fmt.Errorf("chaos: %v after the database came back, no replica answers", recoveryLimit)
		}
		answered = !slices.ContainsFunc(<-p.burst(ctx, product), func(a answer) bool { return a.status != http.StatusOK })
	}
	p.judge(<-p.burst(ctx, product), time.Time{}, nil, http.StatusOK)
	return ctx.Err()
}

// answer is the answer to one request of a burst.
type answer struct {
	status   int // 0: none
	role     string
	began    time.Time
	answered time.Time
}

// burst asks every replica for a product, many at once.
func (p *programs) burst(ctx context.Context, product int) <-chan []answer {
	replicas := p.fleet.Replicas()
	answers := make([]answer, burstSize)
	var asking sync.WaitGroup
	for i := range answers {
		url := fmt.Sprintf("%s/product/coalesced/%d", replicas[i%len(replicas)].URL, product)
		asking.Go(func() { answers[i] = p.ask(ctx, url) })
	}
	done := make(chan []answer, 1)
	go func() {
		asking.Wait()
		done <- answers
	}()
	return done
}

func (p *programs) ask(ctx context.Context, url string) answer {
	a := answer{began: time.Now()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return a
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return a
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return a
	}
	a.status, a.role, a.answered = resp.StatusCode, resp.Header.Get("X-Coalesce-Role"), time.Now()
	return a
}

// judge counts a burst, and how long its callers waited since then or since they
// came. A caller is hurt when it gets another status than the
// database's state calls for, or no answer.
func (p *programs) judge(answers []answer, since time.Time, waits *[]time.Duration, right ...int) {
	executions := 0
	for _, a := range answers {
		p.row.Calls++
		if !slices.Contains(right, a.status) {
			p.row.Hurt++
			continue
		}
		if a.role == "leader" || a.role == "fallback" {
			executions++
		}
		if waits != nil {
			from := since
			if a.began.After(from) {
				from = a.began
			}
			if a.answered.After(from) {
				*waits = append(*waits, a.answered.Sub(from))
			}
		}
	}
	p.row.Executions += executions
	p.row.perCall = append(p.row.perCall, executions)
}
