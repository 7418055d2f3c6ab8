package e2e_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// monitor records the commands that clients send to Redis, as MONITOR shows them.
type monitor struct {
	conn net.Conn
	done sync.WaitGroup

	mu    sync.Mutex
	lines []string
}

func startMonitor(t *testing.T, redis *redisrig.Server) *monitor {
	t.Helper()
	conn, err := net.Dial("tcp", redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	m := &monitor{conn: conn}
	t.Cleanup(m.stop)
	if _, err := fmt.Fprint(conn, "MONITOR\r\n"); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	if ok, err := reader.ReadString('\n'); err != nil || ok != "+OK\r\n" {
		t.Fatalf("MONITOR: %q, %v", ok, err)
	}
	m.done.Go(func() {
		for {
			line, err := reader.ReadString('\n')
			if err != nil {
				return
			}
			m.mu.Lock()
			m.lines = append(m.lines, strings.TrimSpace(line))
			m.mu.Unlock()
		}
	})
	return m
}

func (m *monitor) stop() {
	_ = m.conn.Close()
	m.done.Wait()
}

// take returns the commands since the last take.
func (m *monitor) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	lines := m.lines
	m.lines = nil
	return lines
}

var monitored = regexp.MustCompile(`^\+[0-9.]+ \[\d+ (\S+)\] "([^"]*)"(?: "([^"]*)")?`)

// commands counts the commands of clients, with scripts under the names of their files.
// It leaves out the commands that a script runs, and those that open a connection or
// check it, because no flight pays for them.
func commands(t *testing.T, lines []string) map[string]int {
	t.Helper()
	scripts := map[string]string{}
	files, err := filepath.Glob("../coalesce/internal/protocol/lua/*.lua")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha1.Sum(source)
		scripts[hex.EncodeToString(sum[:])] = strings.TrimSuffix(filepath.Base(file), ".lua")
	}
	counts := map[string]int{}
	for _, line := range lines {
		m := monitored.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("MONITOR shows %q", line)
		}
		client, command := m[1], strings.ToLower(m[2])
		switch command {
		case "hello", "auth", "client", "select", "ping":
			continue
		case "evalsha":
			if name, known := scripts[m[3]]; known {
				command = name
			}
		}
		if client != "lua" {
			counts[command]++
		}
	}
	return counts
}

// runFlight asks every replica for the product, the first replica first, and returns
// the commands that this cost.
func runFlight(t *testing.T, m *monitor, f *fleet.Fleet, pg *postgresrig.Server, id int) map[string]int {
	t.Helper()
	replicas := f.Replicas()
	release := pg.Hold()
	defer release()
	before := joins(t, f)
	m.take()
	var wg sync.WaitGroup
	answers := make([]response, len(replicas))
	errs := make([]error, len(replicas))
	for i, r := range replicas {
		wg.Go(func() {
			answers[i], errs[i] = get(t.Context(), fmt.Sprintf("%s/product/coalesced/%d", r.URL, id))
		})
		eventually(t, "the flight having joined", func() bool { return joins(t, f) == before+i+1 })
	}
	time.Sleep(onItsWay)
	release()
	wg.Wait()
	for i, a := range answers {
		want := "remote-follower"
		if i == 0 {
			want = "leader"
		}
		if errs[i] != nil || a.status != 200 || a.role() != want {
			t.Fatalf("replica %d: status %d, role %s, want %s; %v", i, a.status, a.role(), want, errs[i])
		}
	}
	// No command may follow until the idle subscriptions end.
	time.Sleep(time.Second)
	return commands(t, m.take())
}

func TestAFlightCostsRedisItsBudgetAndNoMore(t *testing.T) {
	t.Parallel()
	pg := database(t)
	redis := redisrig.Start(t)
	// The query is shorter than a third of the lease TTL, so no lease is renewed.
	f := start(t, setup{mode: "distributed", postgres: pg, redisURL: redis.URL(), env: []string{quickQuery, "COALESCE_LEASE_TTL=3m"}})
	m := startMonitor(t, redis)

	const idleTime = 30 * time.Second // for which a subscription stays without a waiter
	began := time.Now()
	runFlight(t, m, f, pg, 2) // it brings the scripts along
	cold := runFlight(t, m, f, pg, 1)
	// The leader sends join and finish. Each of two followers sends join, subscribe and
	// peek.
	if want := map[string]int{"join": 3, "finish": 1, "subscribe": 2, "peek": 2}; !maps.Equal(cold, want) {
		t.Errorf("a cold flight cost %v, want %v", cold, want)
	}
	hot := runFlight(t, m, f, pg, 1)
	if time.Since(began) > idleTime && hot["unsubscribe"] <= 2 {
		delete(hot, "unsubscribe") // a busy machine took so long that the first product's subscriptions ended
	}
	// The leader sends join and finish. Each of two followers sends join.
	if want := map[string]int{"join": 3, "finish": 1}; !maps.Equal(hot, want) {
		t.Errorf("a hot flight cost %v, want %v", hot, want)
	}

	// Each follower ends its idle subscription with one command.
	m.take()
	deadline := time.Now().Add(3 * time.Minute)
	after := map[string]int{}
	for after["unsubscribe"] < 2 && time.Now().Before(deadline) {
		time.Sleep(200 * time.Millisecond) // no event announces them
		for command, n := range commands(t, m.take()) {
			after[command] += n
		}
	}
	if want := map[string]int{"unsubscribe": 2}; !maps.Equal(after, want) {
		t.Errorf("after the flights came %v, want %v", after, want)
	}
}
