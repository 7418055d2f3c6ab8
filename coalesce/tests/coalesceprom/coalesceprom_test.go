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
	// A client that failed to dial as often as its pool is large dials once a second, and
	// sees only then that it is closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// calm is a time that no stall of a busy machine reaches.
const calm = time.Minute

const patient = calm / 6 // the same for Redis, which Close waits for when it is gone

// onItsWay is longer than a reply takes on its way: by what a leader knows of Redis' clock,
// a function that ends sooner after a follower's join may have ended before it.
const onItsWay = 100 * time.Millisecond

// replica is a fleet of one group, "rows", with what a program registers for it.
type replica struct {
	fleet    *distributed.Fleet
	group    *distributed.Group[string]
	registry *prometheus.Registry
}

func newReplica(t *testing.T, server *redisrig.Server, opts ...distributed.Option) replica {
	t.Helper()
	hook := coalesceprom.NewHook("rows")
	client := redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
		DialTimeout: calm, ReadTimeout: calm, WriteTimeout: calm, PoolTimeout: calm})
	fleet, err := distributed.Open(client, append([]distributed.Option{distributed.WithRedisTimeout(patient), distributed.WithLeaseTTL(patient), distributed.WithHooks(hook)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), calm)
		defer cancel()
		if err := fleet.Close(ctx); err != nil {
			t.Error(err)
		}
		_ = client.Close()
	})
	group, err := distributed.NewGroup[string](fleet, "rows")
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(hook, coalesceprom.NewCollector(fleet.Totals))
	return replica{fleet, group, registry}
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
func (r replica) agree(t *testing.T, st distributed.FleetStats) {
	t.Helper()
	got := values(t, r.registry)
	want := map[string]uint64{
		`fleetcall_distributed_garbage_total{}`: st.Redis.Garbage,
	}
	for _, server := range st.Redis.Servers {
		up := uint64(0)
		if server.State == distributed.ServerUp {
			up = 1
		}
		want[fmt.Sprintf(`fleetcall_redis_server_up{server=%q}`, server.Address)] = up
	}
	for group, of := range st.Groups {
		l, d := of.Local, of.Distributed
		for name, n := range map[string]uint64{
			`fleetcall_local_requests_total{group=%q,role="leader"}`:               l.Leaders,
			`fleetcall_local_requests_total{group=%q,role="local-follower"}`:       l.Followers,
			`fleetcall_local_flight_errors_total{group=%q}`:                        l.Errors,
			`fleetcall_distributed_flights_total{group=%q,role="leader"}`:          d.Leaders,
			`fleetcall_distributed_flights_total{group=%q,role="remote-follower"}`: d.Followers,
			`fleetcall_distributed_flights_total{group=%q,role="cached"}`:          d.Cached,
			`fleetcall_distributed_flights_total{group=%q,role="fallback"}`:        d.Fallbacks,
			`fleetcall_distributed_flights_total{group=%q,role="none"}`:            d.NoRole,
			`fleetcall_distributed_flight_errors_total{group=%q}`:                  d.Errors,
			`fleetcall_distributed_takeovers_total{group=%q}`:                      d.Takeovers,
			`fleetcall_distributed_leases_lost_total{group=%q}`:                    d.LeaseLost,
			`fleetcall_distributed_incompatible_total{group=%q}`:                   d.Incompatible,
		} {
			want[fmt.Sprintf(name, group)] = n
		}
	}
	for name, want := range want {
		if n, ok := got[name]; !ok || n != float64(want) {
			t.Errorf("%s is %v (there: %v), want %d", name, n, ok, want)
		}
	}
	failures, fallbacks := sumOf(got, "fleetcall_distributed_redis_failures_total"), sumOf(got, "fleetcall_distributed_fallbacks_total")
	if failures != float64(st.Redis.Errors) || fallbacks != float64(st.Distributed.Fallbacks) {
		t.Errorf("%v failures of Redis and %v fallbacks by their kinds, want %d and %d", failures, fallbacks, st.Redis.Errors, st.Distributed.Fallbacks)
	}
}

// sumOf is the sum of a metric's series.
func sumOf(values map[string]float64, name string) (sum float64) {
	for series, n := range values {
		if strings.HasPrefix(series, name+"{") {
			sum += n
		}
	}
	return sum
}

// waitForSteps waits until the replicas have done a step of the protocol so many times.
func waitForSteps(t *testing.T, step string, times float64, replicas ...replica) {
	t.Helper()
	done := 0.0
	for limit := time.Now().Add(calm); done < times; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Errorf("%v times %s, want %v", done, step, times)
			return
		}
		done = 0
		for _, r := range replicas {
			done += values(t, r.registry)[`fleetcall_redis_command_duration_seconds{result="ok",step="`+step+`"}`]
		}
	}
}

// shareOne has callers on two replicas wait for one flight.
func shareOne(t *testing.T, a, b replica, callers int) {
	t.Helper()
	var wg sync.WaitGroup
	came := func() uint64 {
		return a.group.Stats().Local.Requests + b.group.Stats().Local.Requests
	}
	for i := range 2 * callers {
		wg.Go(func() {
			group := []replica{a, b}[i%2].group
			_, _, err := group.Do(context.Background(), "k", func(context.Context) (string, error) {
				for came() < uint64(2*callers) {
					time.Sleep(time.Millisecond)
				}
				waitForSteps(t, "join", 2, a, b)
				time.Sleep(onItsWay)
				return "value", nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestMetricsAgreeWithStats(t *testing.T) {
	server := redisrig.Start(t)
	a, b := newReplica(t, server), newReplica(t, server)
	failed := errors.New("failed")
	const callers = 10
	shareOne(t, a, b, callers)
	if _, _, err := a.group.Do(t.Context(), "other", func(context.Context) (string, error) { return "", failed }); !errors.Is(err, failed) {
		t.Error(err)
	}
	waitForSteps(t, "finish", 2, a, b)
	server.Kill()
	for range 3 {
		if _, role, err := a.group.Do(t.Context(), "k", func(context.Context) (string, error) { return "", nil }); role != coalesce.Fallback || err != nil {
			t.Errorf("%v, %v", role, err)
		}
	}
	// What the loss of Redis goes on to cause, such as a connection that is
	// tried again, would come between two readings.
	closed(t, a, b)
	for _, r := range []replica{a, b} {
		r.agree(t, r.fleet.Stats())
		problems, err := testutil.GatherAndLint(r.registry)
		if err != nil || len(problems) > 0 {
			t.Errorf("lint: %v, %v", problems, err)
		}
	}
	st := a.fleet.Stats()
	if st.Distributed.Fallbacks != 3 || st.Redis.Errors == 0 || st.Distributed.Errors != 1 {
		t.Errorf("the test did not see what it wants to compare: %+v", st)
	}
	got := values(t, a.registry)
	if waits := sumOf(got, "fleetcall_call_wait_seconds"); waits != callers+4 {
		t.Errorf("%v waits are told, want %d", waits, callers+4)
	}
	if got[`fleetcall_function_duration_seconds{group="rows",outcome="error",role="leader"}`] != 1 || got[`fleetcall_function_duration_seconds{group="rows",outcome="ok",role="fallback"}`] != 3 {
		t.Errorf("functions: %v", got)
	}
	const lag = `fleetcall_follower_lag_seconds{group="rows"}`
	if both := got[lag] + values(t, b.registry)[lag]; both != float64(st.Distributed.Followers+b.group.Stats().Distributed.Followers) {
		t.Errorf("%v lags are told", both)
	}
	if got[`fleetcall_redis_command_duration_seconds{result="ok",step="join"}`] < 2 {
		t.Errorf("commands: %v", got)
	}
	if up, ok := got[fmt.Sprintf(`fleetcall_redis_server_up{server=%q}`, server.Addr)]; !ok || up != 0 {
		t.Errorf("the server that is gone is up: %v (there: %v)", up, ok)
	}
	const downs = `fleetcall_redis_server_downs_total{kind="connection"}`
	for limit := time.Now().Add(calm); values(t, a.registry)[downs] != 1; time.Sleep(time.Millisecond) { // told when the log has been written
		if time.Now().After(limit) {
			t.Fatalf("that the server went down is not counted: %v", values(t, a.registry))
		}
	}
}

func closed(t *testing.T, replicas ...replica) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), calm)
	defer cancel()
	for _, r := range replicas {
		if err := r.fleet.Close(ctx); err != nil {
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
	r.fleet.ResetStats()
	for name, n := range values(t, r.registry) {
		if strings.HasSuffix(strings.SplitN(name, "{", 2)[0], "_total") && n < before[name] {
			t.Errorf("%s went from %v to %v", name, before[name], n)
		}
	}
	do()
	if n := values(t, r.registry)[`fleetcall_distributed_flights_total{group="rows",role="leader"}`]; n != 2 {
		t.Errorf("%v flights were led, want 2", n)
	}
	if n := r.group.Stats().Distributed.Leaders; n != 1 {
		t.Errorf("Stats says %d, want 1", n)
	}
}

// TestEachKindOfOutageHasASeriesFromTheStart: a rate does not see the first increment of a
// series that was not there before.
func TestEachKindOfOutageHasASeriesFromTheStart(t *testing.T) {
	hook, registry := coalesceprom.NewHook(), prometheus.NewPedanticRegistry()
	registry.MustRegister(hook)
	want := func(kind string, want float64) {
		t.Helper()
		if n, ok := values(t, registry)[fmt.Sprintf(`fleetcall_redis_server_downs_total{kind=%q}`, kind)]; !ok || n != want {
			t.Errorf("%s: %v (there: %v), want %v", kind, n, ok, want)
		}
	}
	for _, kind := range distributed.FailureKinds() {
		want(kind, 0)
	}
	hook.Server(distributed.ServerChange{State: distributed.ServerDown, Kind: "oom"})
	hook.Server(distributed.ServerChange{State: distributed.ServerUp, Kind: "oom"})
	want("oom", 1)
}

// TestGroupsHaveSeriesOfTheirOwn: one hook and one collector are enough for all.
func TestGroupsHaveSeriesOfTheirOwn(t *testing.T) {
	r := newReplica(t, redisrig.Start(t))
	others, err := distributed.NewGroup[int](r.fleet, "others")
	if err != nil {
		t.Fatal(err)
	}
	const waits, flights = `fleetcall_call_wait_seconds{group=%q,outcome="ok",role="leader"}`, `fleetcall_distributed_flights_total{group=%q,role="leader"}`
	check := func(when, group string, want float64) {
		t.Helper()
		got := values(t, r.registry)
		for _, name := range []string{fmt.Sprintf(waits, group), fmt.Sprintf(flights, group)} {
			if n, ok := got[name]; !ok || n != want {
				t.Errorf("%s: %s is %v (there: %v), want %v", when, name, n, ok, want)
			}
		}
	}
	check("before any call", "rows", 0)
	for range 2 {
		if _, _, err := others.Do(t.Context(), "k", func(context.Context) (int, error) { return 1, nil }); err != nil {
			t.Fatal(err)
		}
	}
	check("after calls of another group", "rows", 0)
	check("after its calls", "others", 2)
	if n, ok := values(t, r.registry)[`fleetcall_distributed_fallbacks_total{cause="timeout",group="others"}`]; !ok || n != 0 {
		t.Errorf("the fallbacks of the other group are %v (there: %v)", n, ok)
	}
	r.agree(t, r.fleet.Stats())
}

// TestLocalGroupsAndAFleetShareARegistry: their metrics have the same names.
func TestLocalGroupsAndAFleetShareARegistry(t *testing.T) {
	r := newReplica(t, redisrig.Start(t))
	var a, b local.Group[string, string]
	r.registry.MustRegister(coalesceprom.NewLocalCollector("a", a.Totals), coalesceprom.NewLocalCollector("b", b.Totals))
	if _, _, err := a.Do(t.Context(), "k", func(context.Context) (string, error) { return "v", nil }); err != nil {
		t.Fatal(err)
	}
	got := values(t, r.registry)
	for group, want := range map[string]float64{"a": 1, "b": 0, "rows": 0} {
		if n, ok := got[fmt.Sprintf(`fleetcall_local_requests_total{group=%q,role="leader"}`, group)]; !ok || n != want {
			t.Errorf("%s has %v leaders (there: %v), want %v", group, n, ok, want)
		}
	}
}

func TestALocalTierAloneIsObservedToo(t *testing.T) {
	var group local.Group[string, string]
	hook := coalesceprom.NewLocalHook("rows")
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(hook, coalesceprom.NewLocalCollector("rows", group.Totals))
	tier, err := distributed.Observed(local.Tier(&group), "rows", hook)
	if err != nil {
		t.Fatal(err)
	}
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
		`fleetcall_local_requests_total{group="rows",role="leader"}`:                      3,
		`fleetcall_local_flight_errors_total{group="rows"}`:                               2,
		`fleetcall_call_wait_seconds{group="rows",outcome="ok",role="leader"}`:            1,
		`fleetcall_call_wait_seconds{group="rows",outcome="panic",role="none"}`:           2,
		`fleetcall_function_duration_seconds{group="rows",outcome="ok",role="leader"}`:    1,
		`fleetcall_function_duration_seconds{group="rows",outcome="panic",role="leader"}`: 2,
		`fleetcall_local_active_flights{group="rows"}`:                                    0,
		`fleetcall_local_waiting_callers{group="rows"}`:                                   0,
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
