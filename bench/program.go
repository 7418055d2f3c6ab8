package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/fleetcall/fleetcall/internal/fleet"
	internalload "github.com/fleetcall/fleetcall/internal/load"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

var errNotServing = errors.New("the balancer has no replica to send requests to")

// deployment is one way to run the program.
type deployment struct {
	name, mode string
	replicas   int
	byURI      bool // nginx: hash $request_uri consistent
}

var deployments = []deployment{
	{name: "distributed, 3 replicas", mode: "distributed", replicas: 3},
	{name: "local, 3 replicas, nginx hash $request_uri", mode: "local", replicas: 3, byURI: true},
	{name: "local, 1 replica", mode: "local", replicas: 1},
	{name: "off, 3 replicas", mode: "off", replicas: 3},
}

// measureProgram fills the report's section on the whole program: replicas
// behind nginx on a private PostgreSQL and Redis, one hot product.
func measureProgram(b *bench) {
	connections, delays, lasting := []int{10, 100, 1_000, 5_000}, []time.Duration{0, 5 * time.Millisecond, 500 * time.Millisecond}, 2*time.Second
	if b.quick {
		connections, delays, lasting = []int{10, 100}, []time.Duration{5 * time.Millisecond}, 500*time.Millisecond
	}
	s := b.section("program", "The whole program")
	h := &rig.Host{}
	defer h.Close()
	postgres, redis := postgresrig.Start(h), redisrig.Start(h)
	initdb := exec.Command(b.binary, "initdb")
	initdb.Env = append(os.Environ(), "DATABASE_URL="+postgres.URL())
	if output, err := initdb.CombinedOutput(); err != nil {
		must(fmt.Errorf("fleetcall initdb: %w\n%s", err, output))
	}

	for _, delay := range delays {
		t := table{
			Title:   fmt.Sprintf("One hot product, a query of %v, %v a cell", delay, lasting),
			Columns: []string{"", "connections", "requests/s", "p50", "p99", "p99.9", "queries", "failed"},
		}
		latency := chart{
			File: fmt.Sprintf("program-%dms.svg", delay.Milliseconds()), Title: fmt.Sprintf("p99 behind nginx, a query of %v", delay),
			X: "connections", Y: "milliseconds",
		}
		for _, d := range deployments {
			f := value(fleet.Start(background(), fleet.Config{
				Binary: b.binary, Replicas: d.replicas, Mode: d.mode, Balancer: fleet.BalancerNginx, ByURI: d.byURI,
				DatabaseURL: postgres.URL(), RedisURL: redis.URL(),
				Env: []string{"QUERY_DELAY=" + delay.String(), "LOG_LEVEL=error"},
			}))
			l := line{Name: d.name}
			addr := strings.TrimPrefix(f.URL(), "http://")
			url := f.URL() + "/product/coalesced/1"
			load(url, addr, 10, 300*time.Millisecond) // warms connections and pools
			for _, n := range connections {
				awaitIdle(f)
				postgres.ResetQueries()
				a := load(url, addr, n, lasting)
				queries := postgres.Queries()
				t.add(d.name, thousands(n), thousands(int(a.perSecond())), milliseconds(float64(a.p50)), milliseconds(float64(a.p99)),
					milliseconds(float64(a.p999)), thousands(queries), thousands(a.failed))
				l.add(float64(n), float64(a.p99)/1e6)
			}
			latency.Lines = append(latency.Lines, l)
			must(f.Close())
		}
		s.Tables = append(s.Tables, t)
		s.Charts = append(s.Charts, latency)
	}
}

// awaitIdle returns when no replica has a request of the load before.
func awaitIdle(f *fleet.Fleet) {
	ctx, cancel := context.WithTimeout(background(), 20*time.Second)
	defer cancel()
	target := internalload.Target{Base: f.URL()}
	for {
		stats, err := target.FleetStats(ctx)
		if err == nil && stats.Active == 0 || ctx.Err() != nil {
			return
		}
		time.Sleep(50 * time.Millisecond) // /stats is asked, it does not tell
	}
}
