package distributed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// openFleet returns a Fleet of its own connections.
func openFleet(t testing.TB, server *redisrig.Server, opts ...distributed.Option) *distributed.Fleet {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true})
	f, err := distributed.Open(client, append([]distributed.Option{distributed.WithRedisTimeout(calm), distributed.WithLeaseTTL(calm)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), calm)
		defer cancel()
		if err := f.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		_ = client.Close()
	})
	return f
}

func newGroup[V any](t testing.TB, f *distributed.Fleet, name string, opts ...distributed.GroupOption) *distributed.Group[V] {
	t.Helper()
	g, err := distributed.NewGroup[V](f, name, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// calling calls Do on a goroutine of its own. It sends an error in place of
// Do's answer when Do panics, or when the goroutine exits.
func calling[V any](ctx context.Context, g *distributed.Group[V], key string, fn func(context.Context) (V, error)) <-chan answer[V] {
	answers := make(chan answer[V], 1)
	go func() {
		got := answer[V]{err: errNoReturn}
		defer func() {
			if value := recover(); value != nil {
				got.err = fmt.Errorf("the call of Do panicked: %v", value)
			}
			answers <- got
		}()
		val, role, err := g.Do(ctx, key, fn)
		got = answer[V]{val, role, err}
	}()
	return answers
}

// errNoReturn is what calling sends when the goroutine of its call has exited.
var errNoReturn = errors.New("the call of Do has not returned")

// comesBack returns what calling sends, and fails the test when it sends nothing.
func comesBack[V any](t testing.TB, who string, answers <-chan answer[V]) answer[V] {
	t.Helper()
	select {
	case got := <-answers:
		return got
	case <-time.After(calm):
		t.Fatalf("%s never comes back", who)
		panic("unreachable")
	}
}

// waitJoined waits until another replica follows the key's flight.
func waitJoined(t testing.TB, server *redisrig.Server, name, key string) {
	t.Helper()
	client := server.Client()
	eventually(t, "a follower has joined", func() bool { return strings.HasPrefix(leaseOf(client, name, key), "1") })
	time.Sleep(onItsWay)
}

// leaseOf returns what stands as the lease of a Group's key; "": nothing.
func leaseOf(client *redis.Client, name, key string) string {
	return client.Get(context.Background(), "fleetcall:"+name+":{"+key+"}:lease").Val()
}

// followed has leader lead a flight that ends when follower has joined it, and returns
// what each got.
func followed[L, F any](t testing.TB, server *redisrig.Server, leader *distributed.Group[L], follower *distributed.Group[F], name string,
	lead func() (L, error), follow func() (F, error)) (l answer[L], f answer[F]) {
	t.Helper()
	ctx := context.Background()
	client := server.Client()
	eventually(t, "the flight before has ended", func() bool { return leaseOf(client, name, "k") == "" })
	began, joined := make(chan struct{}), make(chan struct{})
	var alone atomic.Bool // the follower did not wait
	var calls sync.WaitGroup
	calls.Go(func() {
		l.val, l.role, l.err = leader.Do(ctx, "k", func(context.Context) (L, error) {
			close(began)
			<-joined
			return lead()
		})
	})
	<-began
	calls.Go(func() {
		f.val, f.role, f.err = follower.Do(ctx, "k", func(context.Context) (F, error) {
			alone.Store(true)
			return follow()
		})
	})
	eventually(t, "the follower has joined, or runs its own", func() bool { return alone.Load() || strings.HasPrefix(leaseOf(client, name, "k"), "1") })
	time.Sleep(onItsWay)
	close(joined)
	calls.Wait()
	return l, f
}

type user struct {
	ID    int    `json:"id"`
	Email string `json:"email"`
}

type order struct {
	ID    int     `json:"id"`
	Total float64 `json:"total"`
}

func TestTwoTypesUnderOneNameAreNeverMixed(t *testing.T) {
	server := redisrig.Start(t)
	here := openFleet(t, server)
	users := newGroup[user](t, here, "things")
	if _, err := distributed.NewGroup[order](here, "things"); err == nil || !strings.Contains(err.Error(), "another type") || !strings.Contains(err.Error(), `"things"`) {
		t.Errorf("a second type in one process: %v", err)
	}
	if again, err := distributed.NewGroup[user](here, "things"); err != nil || again.Stats() != users.Stats() {
		t.Errorf("the same type again: %v", err)
	}
	var log logged
	there := openFleet(t, server, distributed.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	orders := newGroup[order](t, there, "things")
	_, o := followed(t, server, users, orders, "things",
		func() (user, error) { return user{42, "a@example.org"}, nil },
		func() (order, error) { return order{42, 99.5}, nil })
	if o.val != (order{42, 99.5}) || o.role != coalesce.Fallback || o.err != nil {
		t.Errorf("the order is %+v", o)
	}
	if n := orders.Stats().Distributed.Incompatible; n != 1 {
		t.Errorf("%d results were incompatible, not 1", n)
	}
	if !strings.Contains(log.String(), "another type or codec") {
		t.Errorf("the log says %q", log.String())
	}
}

func TestAFieldAddedInARollingUpgradeIsNeverZeroOnTheOldReplicas(t *testing.T) {
	server := redisrig.Start(t)
	type before = struct{ ID int }
	type product = struct{ ID, Stock int }
	old := func() *distributed.Group[before] { return newGroup[before](t, openFleet(t, server), "products") }
	updated := func() *distributed.Group[product] { return newGroup[product](t, openFleet(t, server), "products") }
	oldQuery := func() (before, error) { return before{7}, nil }
	query := func() (product, error) { return product{7, 12}, nil }
	if _, f := followed(t, server, old(), updated(), "products", oldQuery, query); f.val != (product{7, 12}) || f.role != coalesce.Fallback || f.err != nil {
		t.Errorf("a new replica that follows an old one has %+v", f)
	}
	if _, f := followed(t, server, updated(), old(), "products", query, oldQuery); f.val.ID != 7 || f.role != coalesce.Fallback || f.err != nil {
		t.Errorf("an old replica that follows a new one has %+v", f)
	}
	if _, f := followed(t, server, updated(), updated(), "products", query, query); f.val != (product{7, 12}) || f.role != coalesce.RemoteFollower {
		t.Errorf("the new replicas do not share: %+v", f)
	}
}

func TestNewGroupRefusesWhatItsCodecWouldChange(t *testing.T) {
	f := openFleet(t, redisrig.Start(t))
	type hidden struct {
		ID   int
		cost int
	}
	type tagged struct {
		ID     int
		Secret string `json:"-"`
	}
	type open struct{ Data any }
	_ = hidden{cost: 1}
	check := func(what string, err error, wants ...string) {
		t.Helper()
		if err == nil {
			t.Errorf("%s is accepted", what)
			return
		}
		for _, want := range append(wants, "AllowLossy") {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v: it does not say %q", what, err, want)
			}
		}
	}
	_, err := distributed.NewGroup[hidden](f, "hidden")
	check("an unexported field", err, "cost")
	_, err = distributed.NewGroup[tagged](f, "tagged")
	check(`a field tagged json:"-"`, err, "Secret")
	_, err = distributed.NewGroup[map[string][]*open](f, "open")
	check("an interface deep inside", err, "Data")
	_, err = distributed.NewGroup[any](f, "any")
	check("V = any", err)
	_, err = distributed.NewGroup[chan int](f, "chan")
	check("a channel", err)
	if _, err = distributed.NewGroup[hidden](f, "hidden", distributed.AllowLossy()); err != nil {
		t.Errorf("AllowLossy: %v", err)
	}
	if _, err = distributed.NewGroup[hidden](f, "gob", distributed.WithCodec(coalesce.Gob[hidden]())); err == nil {
		t.Error("gob carries an unexported field")
	}
	if _, err = distributed.NewGroup[string](f, "codec", distributed.WithCodec(coalesce.JSON[int]())); err == nil || !strings.Contains(err.Error(), "another type") {
		t.Errorf("a codec of another type: %v", err)
	}
}

func TestResultsThatCannotBeEncodedAreHeardInTheDefaultLog(t *testing.T) {
	var buffer bytes.Buffer
	var mu sync.Mutex
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return buffer.Write(b)
	}), nil)))
	defer slog.SetDefault(old)
	server := redisrig.Start(t)
	a, b := newGroup[float64](t, openFleet(t, server), "floats"), newGroup[float64](t, openFleet(t, server), "floats")
	_, f := followed(t, server, a, b, "floats",
		func() (float64, error) { return math.NaN(), nil }, // JSON has none
		func() (float64, error) { return 1, nil })
	if f.val != 1 || f.role != coalesce.Fallback || f.err != nil {
		t.Errorf("the follower has %+v", f)
	}
	eventually(t, "the log has it", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(buffer.String(), "result cannot be encoded") && strings.Contains(buffer.String(), "group=floats")
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// quotaError is an error with fields.
type quotaError struct {
	Tenant string
	Limit  int
}

func (e *quotaError) Error() string {
	return fmt.Sprintf("%s is over its limit of %d", e.Tenant, e.Limit)
}

var errNoRow = errors.New("no such row")

func init() {
	coalesce.RegisterErrorType[*quotaError]("test.quotaError")
	coalesce.RegisterError("test.errNoRow", errNoRow)
}

func TestATypedErrorHasItsFieldsOnEveryReplica(t *testing.T) {
	server := redisrig.Start(t)
	a, b := newGroup[string](t, openFleet(t, server), "errors"), newGroup[string](t, openFleet(t, server), "errors")
	for name, err := range map[string]error{
		"as it is":          &quotaError{"acme", 10},
		"wrapped":           fmt.Errorf("query: %w", &quotaError{"acme", 10}),
		"one of a joined":   errors.Join(errors.New("first"), fmt.Errorf("second: %w", &quotaError{"acme", 10})),
		"one of several %w": fmt.Errorf("%w and %w", errNoRow, &quotaError{"acme", 10}),
	} {
		t.Run(name, func(t *testing.T) {
			l, f := followed(t, server, a, b, "errors", func() (string, error) { return "", err }, func() (string, error) { return "own", nil })
			if f.role != coalesce.RemoteFollower {
				t.Fatalf("the follower is %+v", f)
			}
			for who, got := range map[string]error{"the leader": l.err, "the follower": f.err} {
				var quota *quotaError
				if !errors.As(got, &quota) || *quota != (quotaError{"acme", 10}) {
					t.Errorf("%s has %v: %+v", who, got, quota)
				}
				if got.Error() != err.Error() || errors.Is(got, errNoRow) != errors.Is(err, errNoRow) {
					t.Errorf("%s has %q, not %q", who, got, err)
				}
			}
		})
	}
}

func TestAValueBesideAnErrorIsNobodys(t *testing.T) {
	server := redisrig.Start(t)
	a, b := newGroup[string](t, openFleet(t, server), "partial"), newGroup[string](t, openFleet(t, server), "partial")
	l, f := followed(t, server, a, b, "partial",
		func() (string, error) { return "partial", errNoRow },
		func() (string, error) { return "own", nil })
	for who, got := range map[string]answer[string]{"the leader": l, "the follower": f} {
		if got.val != "" || !errors.Is(got.err, errNoRow) {
			t.Errorf("%s has %q, %v", who, got.val, got.err)
		}
	}
}

func TestWhatIsNoUTF8IsTheSameForAllOrNotShared(t *testing.T) {
	server := redisrig.Start(t)
	a, b := newGroup[string](t, openFleet(t, server), "bytes"), newGroup[string](t, openFleet(t, server), "bytes")
	const odd = "a\xffb"
	if _, f := followed(t, server, a, b, "bytes", func() (string, error) { return odd, nil }, func() (string, error) { return odd, nil }); f.val != odd || f.role != coalesce.Fallback {
		t.Errorf("the follower of a value has %q as %v", f.val, f.role)
	}
	if err := a.Forget(context.Background(), "k"); err != nil { // that it cannot be shared
		t.Fatal(err)
	}
	if _, f := followed(t, server, a, b, "bytes", func() (string, error) { return "", errors.New(odd) }, func() (string, error) { return "own", nil }); f.err == nil || f.err.Error() != odd || f.role != coalesce.RemoteFollower {
		t.Errorf("the follower of an error has %q as %v", f.err, f.role)
	}
}

// loop is an error that wraps itself.
type loop struct{ next []error }

func (*loop) Error() string     { return "loop" }
func (l *loop) Unwrap() []error { return l.next }

func TestAnErrorThatWrapsItselfEndsItsFlight(t *testing.T) {
	server := redisrig.Start(t)
	a, b := newGroup[string](t, openFleet(t, server), "loops"), newGroup[string](t, openFleet(t, server), "loops")
	err := &loop{}
	err.next = []error{err, err}
	if _, f := followed(t, server, a, b, "loops", func() (string, error) { return "", err }, func() (string, error) { return "own", nil }); f.err == nil || f.err.Error() != "loop" {
		t.Errorf("the follower has %v", f.err)
	}
}

func TestAHugeErrorIsSharedShortened(t *testing.T) {
	server := redisrig.Start(t)
	opts := distributed.WithPayloadLimit(1000)
	a, b := newGroup[string](t, openFleet(t, server), "huge", opts), newGroup[string](t, openFleet(t, server), "huge", opts)
	huge := fmt.Errorf("%s: %w", strings.Repeat("x", 9<<20), errNoRow)
	_, f := followed(t, server, a, b, "huge", func() (string, error) { return "", huge }, func() (string, error) { return "own", nil })
	if f.role != coalesce.RemoteFollower || !errors.Is(f.err, errNoRow) || len(f.err.Error()) > 1000 {
		t.Errorf("the follower has an error of %d bytes as %v", len(f.err.Error()), f.role)
	}
}

// stuck is a value whose encoding waits.
type stuck struct{ until chan struct{} }

func (s stuck) MarshalJSON() ([]byte, error)  { <-s.until; return []byte("{}"), nil }
func (s *stuck) UnmarshalJSON(b []byte) error { return nil }

func TestCloseDoesNotWaitForACodecThatHangs(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: redisrig.Start(t).Addr})
	f, err := distributed.Open(client)
	if err != nil {
		t.Fatal(err)
	}
	until := make(chan struct{})
	if _, _, err := newGroup[stuck](t, f, "stuck").Do(context.Background(), "k", func(context.Context) (stuck, error) { return stuck{until}, nil }); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.Close(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Close beside a codec that hangs: %v", err)
	}
	close(until)
	if err := f.Close(context.Background()); err != nil {
		t.Errorf("Close after it: %v", err)
	}
	_ = client.Close()
}
