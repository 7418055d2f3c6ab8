package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/process"
)

type fleetCmd struct {
	Replicas    int    `env:"FLEET_REPLICAS" default:"3" help:"How many replicas to run."`
	Listen      string `name:"listen" env:"LISTEN_ADDR" default:":8000" help:"Address of the balancer."`
	Mode        string `env:"COALESCE_MODE" enum:",off,shadow,local,distributed" default:"" help:"off, shadow, local or distributed; empty: distributed."`
	Balancer    string `env:"FLEET_BALANCER" enum:"auto,nginx,builtin" default:"auto" help:"auto takes nginx where it is installed, else the built-in one."`
	DatabaseURL string `name:"database-url" env:"DATABASE_URL" help:"PostgreSQL; empty: an embedded database."`
	RedisURL    string `name:"redis-url" env:"REDIS_URL" help:"Redis; empty: an embedded one."`
}

// environment is what the replicas have beside the environment. The embedded Redis takes a
// script for many keys a hundred times as long as a real one, and is not to be taken for one
// that does not answer.
func (c *fleetCmd) environment() []string {
	if c.RedisURL != "" || os.Getenv("COALESCE_REDIS_TIMEOUT") != "" || os.Getenv("COALESCE_LEASE_TTL") != "" {
		return nil
	}
	return []string{"COALESCE_REDIS_TIMEOUT=1s"}
}

// Run runs the fleet until ctx ends.
func (c *fleetCmd) Run(ctx context.Context) error {
	f, err := fleet.Start(ctx, fleet.Config{
		Listen:      c.Listen,
		Replicas:    c.Replicas,
		Mode:        c.Mode,
		DatabaseURL: c.DatabaseURL,
		RedisURL:    c.RedisURL,
		Balancer:    c.Balancer,
		Env:         c.environment(),
		Logs:        os.Stderr,
		Report:      reportFleet,
	})
	if err != nil {
		return err
	}
	fmt.Printf("The fleet answers on %s\n\n", f.URL())
	fmt.Printf("  balancer   %s\n  database   %s\n  Redis      %s\n", f.Balancer(), f.Database(), f.Redis())
	for _, r := range f.Replicas() {
		fmt.Printf("  %-10s %s (process %d)\n", r.ID, r.URL, r.Pid())
	}
	fmt.Printf("\n  %s/ shows in a browser what it does\n  %s/product/coalesced/1\n  %s/stats?scope=fleet\n\nCtrl-C stops it.\n", f.URL(), f.URL(), f.URL())
	<-ctx.Done()
	fmt.Fprintln(os.Stderr, "Stopping the fleet.")
	begin := time.Now()
	if err := f.Close(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "The fleet stopped within %v.\n", time.Since(begin).Round(time.Millisecond))
	return nil
}

func reportFleet(sentence string) { fmt.Fprintln(os.Stderr, "fleetcall: "+sentence) }

// runSelf runs another command of this program.
func runSelf(ctx context.Context, command string, env ...string) error {
	path, err := os.Executable()
	if err != nil {
		return fmt.Errorf("fleetcall: finding this program's file: %w", err)
	}
	p, err := process.Start(process.Spec{Path: path, Args: []string{command}, Env: append(os.Environ(), env...), Stdout: os.Stderr, Stderr: os.Stderr})
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Stop(syscall.SIGTERM, 5*time.Second)
		return ctx.Err()
	}
	if err := p.Err(); err != nil {
		return fmt.Errorf("fleetcall: running %s: %w", command, err)
	}
	return nil
}
