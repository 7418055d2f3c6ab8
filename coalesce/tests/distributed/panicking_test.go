package distributed_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// panicking panics where it is told to.
type panicking struct {
	where string
}

func (p panicking) at(where string) {
	if where == p.where {
		panic("observer")
	}
}

func (p panicking) Flight(ctx context.Context, _ distributed.FlightStart) (context.Context, string, func(distributed.Flight)) {
	p.at("flight")
	return ctx, "", func(distributed.Flight) { p.at("landed") }
}

func (p panicking) Run(ctx context.Context, _ distributed.Run) (context.Context, func(error)) {
	p.at("run")
	return ctx, func(error) { p.at("ran") }
}

func (p panicking) Command(c distributed.Command) {
	if c.Kind == "" {
		p.at(c.Step)
	} else {
		p.at("failed " + c.Step)
	}
}

func (p panicking) Server(change distributed.ServerChange) { p.at("server " + string(change.State)) }

func (p panicking) Lease(l distributed.Lease) {
	switch l.State {
	case distributed.LeaseTaken:
		p.at("taken")
	case distributed.LeaseRenewed:
		p.at("renewed")
	case distributed.LeaseReleased:
		p.at("released")
	}
}

// logged is a log that several goroutines write.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestAnObserversPanicEndsOneCallOnce has an observer that panics, wherever it
// may: the call ends, for everybody who counts it, once.
// panics is a place where the observer panics, and the call during which it does.
type panics struct {
	where  string
	fn     func(context.Context) (string, error)
	leaves bool // the caller does
	hangs  bool // Redis does
	panics bool // what its caller sees
}

const panicTimeout = 300 * time.Millisecond // of the flight

func TestAnObserversPanicEndsOneCallOnce(t *testing.T) {
	t.Parallel()
	returns := func(context.Context) (string, error) { return "v", nil }
	waits := func(ctx context.Context) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}
	for name, tt := range map[string]panics{
		"as the flight begins":           {where: "flight", fn: returns, panics: true},
		"as Redis has answered the join": {where: "join", fn: returns, panics: true},
		"as the lease is taken":          {where: "taken", fn: returns, panics: true},
		"as the function is to run":      {where: "run", fn: returns, panics: true},
		"as Redis answers a renewal":     {where: "renew", fn: waits, panics: true},
		"as the lease is renewed":        {where: "renewed", fn: waits, panics: true},
		"as the function has returned":   {where: "ran", fn: returns, panics: true},
		"as the flight has ended":        {where: "landed", fn: returns, panics: true},
		"as it has ended by its timeout": {where: "landed", fn: waits, panics: true},
		"as Redis has the outcome":       {where: "finish", fn: returns},
		"as the lease is released":       {where: "released", fn: returns},
		"the same, by the timeout":       {where: "released", fn: waits},
		"as its caller has left":         {where: "released", fn: waits, leaves: true},
		"the same, as Redis answers":     {where: "abandon", fn: waits, leaves: true},
		"as the join hangs":              {where: "failed join", fn: returns, hangs: true, panics: true},
	} {
		t.Run(name, func(t *testing.T) {
			var log logged
			f := newFleet[string](t, 1, append(tt.options(), distributed.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))...)
			g := f.groups[0]
			tt.call(t, f)
			eventually(t, "the call has ended", func() bool { return g.Stats().Distributed.ActiveFlights == 0 })
			// Close does not wait for a server that is down.
			eventually(t, "the server is up", func() bool { return g.Stats().Distributed.Server == distributed.ServerUp })
			closing, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			if err := g.Close(closing); err != nil {
				t.Errorf("Close: %v", err)
			}
			if left := f.server.Client().Exists(context.Background(), "fleetcall:test:{k}:lease", "fleetcall:test:{k}:attempts").Val(); left != 0 {
				t.Errorf("%d of its lease and attempts are left", left)
			}
			if tt.panics && strings.Contains(log.String(), "panic") {
				t.Errorf("its caller saw the panic, which was logged all the same:\n%s", log.String())
			}
			if st := g.Stats(); st.Distributed.Requests != 1 || st.Distributed.ActiveFlights != 0 || st.Local.ActiveFlights != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

func (p panics) options() []distributed.Option {
	opts := []distributed.Option{distributed.WithHooks(panicking{where: p.where}), distributed.WithFlightTimeout(panicTimeout)}
	if p.hangs {
		opts = append(opts, distributed.WithRedisTimeout(100*time.Millisecond), distributed.WithFlightTimeout(10*time.Second))
	}
	if strings.HasPrefix(p.where, "renew") {
		opts = append(opts, distributed.WithLeaseTTL(panicTimeout/2))
	}
	return opts
}

// call calls once, and fails the test unless the caller sees the panic if it should.
func (p panics) call(t *testing.T, f *fleet[string]) {
	t.Helper()
	ctx := context.Background()
	if p.leaves {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, panicTimeout/3)
		defer cancel()
	}
	if p.hangs {
		f.server.Freeze()
	}
	defer func() {
		if p.hangs {
			f.server.Thaw()
		}
		panicked, _ := recover().(*coalesce.PanicError)
		if (panicked != nil) != p.panics || panicked != nil && panicked.Value != "observer" {
			t.Errorf("the caller's panic is %v", panicked)
		}
	}()
	if _, _, err := f.groups[0].Do(ctx, "k", p.fn); p.leaves && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller got %v", err)
	}
}

// TestAnObserversPanicBesideAllCallsEndsNothing is about a server that goes down
// and comes up, which is nobody's call.
func TestAnObserversPanicBesideAllCallsEndsNothing(t *testing.T) {
	for _, where := range []string{"failed probe", "probe", "server down", "server up"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel() // they wait for the server
			var log logged
			f := newFleet[string](t, 1, distributed.WithHooks(panicking{where: where}), distributed.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
			f.settled()
			f.memory("1")
			if _, role, err := f.groups[0].Do(context.Background(), "k", value); role != coalesce.Fallback || err != nil {
				t.Errorf("%v, %v", role, err)
			}
			eventually(t, "a probe has failed", func() bool { return f.groups[0].Stats().Distributed.RedisErrorsBy["oom"] > 1 })
			f.memory("0")
			eventually(t, "the server is up", func() bool { return f.groups[0].Stats().Distributed.Server == distributed.ServerUp })
			eventually(t, "the panic is logged", func() bool { return strings.Contains(log.String(), "panic beside all calls") })
		})
	}
}

// panicsAtRenewals is an observer.
type panicsAtRenewals struct{ panics chan struct{} }

func (p panicsAtRenewals) Command(c distributed.Command) {
	if c.Step == "renew" {
		close(p.panics)
		panic("observer")
	}
}

// TestCloseWaitsForTheAbandonThatAPanicMeets has a renewal fail, and the observer
// panic at that, while the call waits for the answer to its abandon.
func TestCloseWaitsForTheAbandonThatAPanicMeets(t *testing.T) {
	t.Parallel()
	observer := panicsAtRenewals{make(chan struct{})}
	renews, fails := make(chan struct{}), make(chan struct{})
	abandons, answered := make(chan struct{}, 1), make(chan struct{})
	wire := &tap{t: t, server: redisrig.Start(t), before: func(script string, _ []any) error {
		switch script {
		case "renew":
			close(renews)
			<-fails
			return errors.New("a renewal that fails")
		case "abandon":
			abandons <- struct{}{}
			<-answered
		}
		return nil
	}}
	g := wiredGroup[string](wire, distributed.WithHooks(observer), distributed.WithLeaseTTL(3*time.Second))
	ends := make(chan struct{})
	ctx, leave := context.WithCancel(context.Background())
	left := make(chan any)
	go func() {
		defer func() { left <- recover() }()
		_, _, _ = g.Do(ctx, "k", func(context.Context) (string, error) {
			<-ends
			return "", nil
		})
	}()
	<-renews
	leave()
	<-left
	<-abandons
	close(fails)
	<-observer.panics
	closed := make(chan error, 1)
	go func() { closed <- g.Close(context.Background()) }()
	select {
	case err := <-closed:
		t.Errorf("Close returned %v, with an abandon under way", err)
		closed <- nil
	case <-time.After(100 * time.Millisecond): // long enough for a Close that does not wait
	}
	close(answered)
	close(ends)
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
	if leases := wire.server.Client().Keys(context.Background(), "*:lease").Val(); len(leases) != 0 {
		t.Errorf("left in Redis: %q", leases)
	}
}
