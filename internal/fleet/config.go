package fleet

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/fleetcall/fleetcall/internal/loopback"
)

// Config configures a fleet. Its zero value stands for three replicas of the running
// program in distributed mode, with an embedded database and Redis, on a free port.
type Config struct {
	Binary      string // path of fleetcall; empty: the running program's
	Listen      string // the balancer's address; empty: a free port of 127.0.0.1
	Replicas    int    // to start with; zero: 3
	Mode        string // off, shadow, local or distributed; empty: distributed
	DatabaseURL string // empty: an embedded database
	RedisURL    string // empty: an embedded Redis
	Balancer    string // BalancerAuto, BalancerNginx or BalancerBuiltin; empty: auto
	ByURI       bool   // nginx sends all requests for one path to one replica, by a consistent hash

	// Env is added to this process's environment for the replicas. Where both set a
	// variable, Env wins.
	Env []string
	// Logs receives the output of the replicas and of nginx. Each line starts with the
	// name of its process in brackets. If Logs is nil, the output is dropped.
	Logs io.Writer
	// Report is called with a sentence when something unexpected happens, such as the
	// death of a replica. Several goroutines may call it at the same time. It may be
	// nil.
	Report func(string)
	// StartTimeout bounds the time until a replica is ready. Zero stands for 30
	// seconds.
	StartTimeout time.Duration
	// StopGrace bounds the time that a replica may take to end after SIGTERM. Then it
	// is killed. Zero stands for 40 seconds.
	StopGrace time.Duration
}

// The values of Config.Balancer. BalancerAuto chooses nginx if it can be used.
const (
	BalancerAuto    = "auto"
	BalancerNginx   = "nginx"
	BalancerBuiltin = "builtin"
)

func (c *Config) setDefaults() error {
	if c.Binary == "" {
		path, err := os.Executable()
		if err != nil {
			return fmt.Errorf("fleetcall: finding this program's file: %w", err)
		}
		c.Binary = path
	}
	if c.Replicas == 0 {
		c.Replicas = 3
	}
	if c.Replicas < 1 {
		return fmt.Errorf("fleetcall: a fleet of %d replicas: it needs at least 1", c.Replicas)
	}
	if c.Mode == "" {
		c.Mode = "distributed"
	}
	if !slices.Contains([]string{"off", "shadow", "local", "distributed"}, c.Mode) {
		return fmt.Errorf("fleetcall: unknown mode %q: it is off, shadow, local or distributed", c.Mode)
	}
	if c.Balancer == "" {
		c.Balancer = BalancerAuto
	}
	if !slices.Contains([]string{BalancerAuto, BalancerNginx, BalancerBuiltin}, c.Balancer) {
		return fmt.Errorf("fleetcall: unknown balancer %q: it is %s, %s or %s", c.Balancer, BalancerAuto, BalancerNginx, BalancerBuiltin)
	}
	if err := c.chooseListen(); err != nil {
		return err
	}
	if c.Logs == nil {
		c.Logs = io.Discard
	}
	if c.Report == nil {
		c.Report = func(string) {}
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = 30 * time.Second
	}
	if c.StopGrace == 0 {
		c.StopGrace = 40 * time.Second
	}
	return nil
}

// chooseListen chooses a free port where Listen names none, and checks that nothing
// listens on the address yet. nginx alone would not notice: with reuseport it shares
// a port with any other nginx of the same user, and each of two fleets on one port
// would get half of the requests.
func (c *Config) chooseListen() error {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("fleetcall: listen address %q: %w", c.Listen, err)
	}
	if port == "0" {
		free, err := loopback.FreePort()
		if err != nil {
			return err
		}
		c.Listen = net.JoinHostPort(host, strconv.Itoa(free))
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("fleetcall: listening on %s: %w", c.Listen, err)
	}
	if err := l.Close(); err != nil {
		return fmt.Errorf("fleetcall: listening on %s: %w", c.Listen, err)
	}
	return nil
}
