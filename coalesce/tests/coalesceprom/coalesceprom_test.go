package coalesceprom_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalesceprom"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/local"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestMain(m *testing.M) {
	logging.Disable() // Redis goes away in these tests
	goleak.VerifyTestMain(m)
}

// replica is a group with what a program registers for it.
type replica struct {
	group    *distributed.Group[string]
	registry *prometheus.Registry
}

func newReplica(t *testing.T, server *redisrig.Server, opts ...distributed.Option) replica {
	t.Helper()
	observer := coalesceprom.NewObserver()
	client := redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetries: -1, DialerRetries: 1})
	group, err := distributed.New[string](client, append(opts, distributed.WithObserver(observer))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := group.Close(ctx); err != nil {
			t.Error(err)
		}
		_ = client.Close()
	})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(observer, coalesceprom.NewCollector(group.Totals))
	return replica{group, registry}
}

// values are the samples of a registry, those of histograms by their counts, as
// name{label="value",…}.
func values(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			all[series(family.GetName(), m)] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

func series(name string, m *dto.Metric) string {
	var labels []string
	for _, l := range m.GetLabel() {
		labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	return name + "{" + strings.Join(labels, ",") + "}"
}

// agree fails the test unless every counter is what Stats says.
func (r replica) agree(t *testing.T, st distributed.Stats) {
	t.Helper()
	d := st.Distributed
	got := values(t, r.registry)
	for name, want := range map[string]uint64{
		`fleetcall_local_requests_total{role="leader"}`:                  st.Local.Leaders,
		`fleetcall_local_requests_total{role="local-follower"}`:          st.Local.Followers,
		`fleetcall_local_flight_errors_total{}`:                          st.Local.Errors,
		`fleetcall_distributed_flights_total{role="leader"}`:             d.Leaders,
		`fleetcall_distributed_flights_total{role="remote-follower"}`:    d.Followers,
		`fleetcall_distributed_flights_total{role="cached"}`:             d.Cached,
		`fleetcall_distributed_flights_total{role="fallback"}`:           d.Fallbacks,
		`fleetcall_distributed_flights_total{role="none"}`:               d.NoRole,
		`fleetcall_distributed_flight_errors_total{}`:                    d.Errors,
		`fleetcall_distributed_takeovers_total{}`:                        d.Takeovers,
		`fleetcall_distributed_leases_lost_total{}`:                      d.LeaseLost,
		`fleetcall_distributed_garbage_total{}`:                          d.Garbage,
		`fleetcall_distributed_breaker_state{state="` + d.Breaker + `"}`: 1,
	} {
		if n, ok := got[name]; !ok || n != float64(want) {
			t.Errorf("%s is %v (there: %v), want %d", name, n, ok, want)
		}
	}
	var failures, fallbacks uint64
	for name, n := range got {
		if strings.HasPrefix(name, "fleetcall_distributed_redis_failures_total") {
			failures += uint64(n)
		}
		if strings.HasPrefix(name, "fleetcall_distributed_fallbacks_total") {
			fallbacks += uint64(n)
		}
	}
	if failures != d.RedisErrors || fallbacks != d.Fallbacks {
		t.Errorf("%d failures of Redis and %d fallbacks by their kinds, want %d and %d", failures, fallbacks, d.RedisErrors, d.Fallbacks)
	}
}

func TestMetricsAgreeWithStats(t *testing.T) {
	server := redisrig.Start(t)
	a, b := newReplica(t, server), newReplica(t, server)
	failed := errors.New("failed")
	const callers = 10
	var wg sync.WaitGroup
	came := func() (n uint64) {
		return a.group.Stats().Local.Requests + b.group.Stats().Local.Requests
	}
	for i := range 2 * callers {
		wg.Go(func() {
			group := []replica{a, b}[i%2].group
			_, _, err := group.Do(context.Background(), "k", func(context.Context) (string, error) {
				for came() < 2*callers {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(50 * time.Millisecond) // until the other replica has joined, most likely
				return "value", nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, _, err := a.group.Do(t.Context(), "other", func(context.Context) (string, error) { return "", failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	server.Kill()
	for range 3 {
		if _, role, err := a.group.Do(t.Context(), "k", func(context.Context) (string, error) { return "", nil }); role != coalesce.Fallback || err != nil {
			t.Errorf("%v, %v", role, err)
		}
	}
	// What the loss of Redis goes on to cause, such as a connection that is
	// tried again, would come between two readings.
	closed(t, a.group, b.group)
	for _, r := range []replica{a, b} {
		r.agree(t, r.group.Stats())
		problems, err := testutil.GatherAndLint(r.registry)
		if err != nil || len(problems) > 0 {
			t.Errorf("lint: %v, %v", problems, err)
		}
	}
	st := a.group.Stats()
	if st.Distributed.Fallbacks != 3 || st.Distributed.RedisErrors == 0 || st.Distributed.Errors != 1 {
		t.Errorf("the test did not see what it wants to compare: %+v", st)
	}
	got := values(t, a.registry)
	waits := 0.0
	for name, n := range got {
		if strings.HasPrefix(name, "fleetcall_call_wait_seconds") {
			waits += n
		}
	}
	if waits != callers+4 {
		t.Errorf("%v waits are told, want %d", waits, callers+4)
	}
	if got[`fleetcall_function_duration_seconds{outcome="error",role="leader"}`] != 1 || got[`fleetcall_function_duration_seconds{outcome="ok",role="fallback"}`] != 3 {
		t.Errorf("functions: %v", got)
	}
	if both := got[`fleetcall_follower_lag_seconds{}`] + values(t, b.registry)[`fleetcall_follower_lag_seconds{}`]; both != float64(st.Distributed.Followers+b.group.Stats().Distributed.Followers) {
		t.Errorf("%v lags are told", both)
	}
	if got[`fleetcall_redis_command_duration_seconds{result="ok",step="join"}`] < 2 {
		t.Errorf("commands: %v", got)
	}
	const opened = `fleetcall_distributed_breaker_transitions_total{to="open"}`
	for limit := time.Now().Add(10 * time.Second); values(t, a.registry)[opened] < 1; time.Sleep(time.Millisecond) { // told when the log has been written
		if time.Now().After(limit) {
			t.Fatalf("the breaker's opening is not counted: %v", values(t, a.registry))
		}
	}
}

func closed(t *testing.T, groups ...*distributed.Group[string]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, group := range groups {
		if err := group.Close(ctx); err != nil {
			t.Error(err)
		}
	}
}

func TestCountersGoOnAfterAReset(t *testing.T) {
	r := newReplica(t, redisrig.Start(t))
	do := func() {
		t.Helper()
		if _, _, err := r.group.Do(t.Context(), "k", func(context.Context) (string, error) { return "", errors.New("no") }); err == nil {
			t.Error("no error")
		}
	}
	do()
	before := values(t, r.registry)
	r.group.ResetStats()
	for name, n := range values(t, r.registry) {
		if strings.HasSuffix(strings.SplitN(name, "{", 2)[0], "_total") && n < before[name] {
			t.Errorf("%s went from %v to %v", name, before[name], n)
		}
	}
	do()
	if n := values(t, r.registry)[`fleetcall_distributed_flights_total{role="leader"}`]; n != 2 {
		t.Errorf("%v flights were led, want 2", n)
	}
	if n := r.group.Stats().Distributed.Leaders; n != 1 {
		t.Errorf("Stats says %d, want 1", n)
	}
}

func TestALocalTierAloneIsObservedToo(t *testing.T) {
	var group local.Group[string, string]
	observer := coalesceprom.NewLocalObserver()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(observer, coalesceprom.NewLocalCollector(group.Totals))
	tier := distributed.Observed(local.Tier(&group), observer)
	if v, role, err := tier.Do(t.Context(), "k", func(context.Context) (string, error) { return "v", nil }); v != "v" || role != coalesce.Leader || err != nil {
		t.Errorf("%q, %v, %v", v, role, err)
	}
	func() {
		defer func() {
			if _, ok := recover().(*coalesce.PanicError); !ok {
				t.Error("the panic did not come through")
			}
		}()
		_, _, _ = tier.Do(t.Context(), "k", func(context.Context) (string, error) { panic("boom") })
	}()
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_, _, _ = tier.Do(context.Background(), "k", func(context.Context) (string, error) { runtime.Goexit(); return "", nil })
	}()
	<-exited
	got := values(t, registry)
	for name, want := range map[string]float64{
		`fleetcall_local_requests_total{role="leader"}`:                      3,
		`fleetcall_local_flight_errors_total{}`:                              2,
		`fleetcall_call_wait_seconds{outcome="ok",role="leader"}`:            1,
		`fleetcall_call_wait_seconds{outcome="panic",role="none"}`:           2,
		`fleetcall_function_duration_seconds{outcome="ok",role="leader"}`:    1,
		`fleetcall_function_duration_seconds{outcome="panic",role="leader"}`: 2,
		`fleetcall_local_active_flights{}`:                                   0,
		`fleetcall_local_waiting_callers{}`:                                  0,
	} {
		if n, ok := got[name]; !ok || n != want {
			t.Errorf("%s is %v (there: %v), want %v", name, n, ok, want)
		}
	}
	for name := range got {
		if !strings.HasPrefix(name, "fleetcall_local_") && !strings.HasPrefix(name, "fleetcall_call_wait_") && !strings.HasPrefix(name, "fleetcall_function_") {
			t.Errorf("a local tier has the distributed one's %s", name)
		}
	}
}
