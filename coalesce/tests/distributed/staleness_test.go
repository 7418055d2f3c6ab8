package distributed_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
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

// wire is what one replica exchanges with Redis, as a test sees and disturbs it.
type wire struct {
	t      testing.TB
	server *redisrig.Server
	lose   func(frame []byte) bool // which Pub/Sub messages do not arrive; nil: all do
	before func(script string, args []any) error
	after  func(script string, args []any, reply any, took time.Duration)
}

// group starts a replica on the wire.
func wiredGroup[V any](w *wire, opts ...distributed.Option) *distributed.Group[V] {
	w.t.Helper()
	client := redis.NewClient(&redis.Options{Addr: w.server.Addr, Dialer: w.dial})
	client.AddHook(w)
	g, err := distributed.New[V](client, append([]distributed.Option{distributed.WithRedisTimeout(5 * time.Second)}, opts...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := g.Close(context.Background()); err != nil {
			w.t.Errorf("Close: %v", err)
		}
		_ = client.Close()
	})
	return g
}

func (w *wire) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil || w.lose == nil {
		return conn, err
	}
	return &lossyConn{Conn: conn, lose: w.lose}, nil
}

// DialHook makes wire a redis.Hook.
func (w *wire) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook makes wire a redis.Hook that is asked before and told after each
// script.
func (w *wire) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if w.stops(cmd) {
			return cmd.Err()
		}
		sent := time.Now()
		err := next(ctx, cmd)
		if err == nil { // the client has not told cmd of it yet
			w.tell(cmd, time.Since(sent))
		}
		return err
	}
}

// ProcessPipelineHook makes wire a redis.Hook: scripts that come together are
// sent together.
func (w *wire) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		sending := slices.DeleteFunc(slices.Clone(cmds), w.stops)
		sent := time.Now()
		err := next(ctx, sending)
		for _, cmd := range sending {
			w.tell(cmd, time.Since(sent))
		}
		return err
	}
}

func (w *wire) stops(cmd redis.Cmder) bool {
	script := scriptOf(cmd)
	if script == "" || w.before == nil {
		return false
	}
	err := w.before(script, cmd.Args())
	cmd.SetErr(err)
	return err != nil
}

func (w *wire) tell(cmd redis.Cmder, took time.Duration) {
	script := scriptOf(cmd)
	if reply, ok := cmd.(*redis.Cmd); ok && script != "" && cmd.Err() == nil && w.after != nil {
		w.after(script, cmd.Args(), reply.Val(), took)
	}
}

func scriptOf(cmd redis.Cmder) string {
	if len(cmd.Args()) < 2 {
		return ""
	}
	source, _ := cmd.Args()[1].(string)
	return scriptNames()[source]
}

// scriptNames has the name of each script by its source and by its SHA.
var scriptNames = sync.OnceValue(func() map[string]string {
	names := map[string]string{}
	files, err := os.ReadDir("lua")
	if err != nil {
		panic(err)
	}
	for _, file := range files {
		source, err := os.ReadFile("lua/" + file.Name())
		if err != nil {
			panic(err)
		}
		name := strings.TrimSuffix(file.Name(), ".lua")
		names[string(source)], names[redis.NewScript(string(source)).Hash()] = name, name
	}
	return names
})

// lossyConn loses whole messages on a connection that has subscribed.
type lossyConn struct {
	net.Conn
	in         *bufio.Reader // since it has subscribed
	frame      []byte        // what of the last message is not read yet
	subscribed atomic.Bool
	lose       func(frame []byte) bool
}

func (c *lossyConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("subscribe\r\n")) {
		c.subscribed.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *lossyConn) Read(b []byte) (int, error) {
	if c.in == nil {
		n, err := c.Conn.Read(b)
		if !c.subscribed.Load() || err != nil {
			return n, err
		}
		// It waited while the connection became one that has subscribed.
		c.in = bufio.NewReader(io.MultiReader(bytes.NewReader(bytes.Clone(b[:n])), c.Conn))
	}
	for len(c.frame) == 0 {
		frame, err := readFrame(c.in)
		if err != nil {
			return 0, err
		}
		if !bytes.Contains(frame, []byte("message\r\n")) || !c.lose(frame) {
			c.frame = frame
		}
	}
	n := copy(b, c.frame)
	c.frame = c.frame[n:]
	return n, nil
}

// readFrame reads one value of Redis' protocol, as its bytes.
func readFrame(r *bufio.Reader) ([]byte, error) {
	frame, err := r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(frame[1:])))
	switch frame[0] {
	case '$', '=', '!':
		if n < 0 {
			return frame, nil
		}
		body := make([]byte, n+len("\r\n"))
		_, err := io.ReadFull(r, body)
		return append(frame, body...), err
	case '%', '|':
		n *= 2
	case '*', '>', '~':
	default:
		return frame, nil
	}
	for range n {
		element, err := readFrame(r)
		if err != nil {
			return nil, err
		}
		frame = append(frame, element...)
	}
	return frame, nil
}

// stamp is a result that says which execution made it, and when that ended.
type stamp struct {
	Run int64
	End time.Duration // since base
}

var (
	base         = time.Now()
	stampPattern = regexp.MustCompile(`{"Run":(\d+),"End":(\d+)}`)
)

// stampIn returns the stamp in what was sent or received, or zeros.
func stampIn(sent any) (run int64, end time.Duration) {
	m := stampPattern.FindStringSubmatch(fmt.Sprintf("%s", sent))
	if m == nil {
		return 0, 0
	}
	run, _ = strconv.ParseInt(m[1], 10, 64)
	nanos, _ := strconv.ParseInt(m[2], 10, 64)
	return run, time.Duration(nanos)
}

// journal is what happened to the results of executions.
type journal struct {
	mu        sync.Mutex
	ran       map[int64]int              // which replica ran it
	told      map[int64]time.Duration    // from its end until its replica had it, to send it to Redis
	asked     map[journey]time.Duration  // since base, when the peek was sent that brought it
	delivered map[journey]bool           // its message has arrived
	returned  map[journey]time.Duration  // since base, when the caller who led the local flight had it
	roles     map[coalesce.Role]int      // of callers
	lateness  map[string][]time.Duration // by path, of callers who came after the end
}

// journey is one result's way to one replica.
type journey struct {
	replica int
	run     int64
}

type caller struct {
	arrived time.Duration // since base
	result  stamp
	role    coalesce.Role
}

// TestNoCallerGetsAResultThatEndedBeforeItCame loses a quarter of the messages
// and holds up a quarter of the finishes. It tells by what way a caller got its
// result:
//
//   - own: its replica ran the function, or the message brought the result. It
//     may have come after the function's end, by the one delivery that is
//     promised, but not after the caller who led it here had the result.
//   - fetched: the message did not come, a peek's or a join's reply had the
//     result. It must not have come later after the end than MaxAge, give or
//     take what its replica cannot know: the time until the leader's had taken
//     note of the end, and that of the peek's reply.
func TestNoCallerGetsAResultThatEndedBeforeItCame(t *testing.T) {
	for _, maxAge := range []time.Duration{0, 20 * time.Millisecond} {
		t.Run("MaxAge "+maxAge.String(), func(t *testing.T) {
			const replicas, callers, keys = 3, 8, 3
			calls := 100
			if testing.Short() {
				calls = 30
			}
			server := redisrig.Start(t)
			j := &journal{
				ran: map[int64]int{}, told: map[int64]time.Duration{}, asked: map[journey]time.Duration{},
				delivered: map[journey]bool{}, returned: map[journey]time.Duration{},
				roles: map[coalesce.Role]int{}, lateness: map[string][]time.Duration{},
			}
			var runs, lost atomic.Int64
			var groups []*distributed.Group[stamp]
			for r := range replicas {
				w := j.wire(t, server, r, &lost)
				groups = append(groups, wiredGroup[stamp](w, distributed.WithMaxAge(maxAge), distributed.WithLeaseTTL(100*time.Millisecond), distributed.WithMaxTakeovers(100)))
			}
			answers := make([][]caller, replicas*callers)
			var wg sync.WaitGroup
			for i := range answers {
				wg.Go(func() {
					for range calls {
						replica := i % replicas
						c := caller{arrived: time.Since(base)}
						var err error
						c.result, c.role, err = groups[replica].Do(context.Background(), "k"+strconv.Itoa(rand.IntN(keys)), func(context.Context) (stamp, error) {
							run := runs.Add(1)
							j.mu.Lock()
							j.ran[run] = replica
							j.mu.Unlock()
							time.Sleep(rand.N(2 * time.Millisecond)) // the work
							return stamp{run, time.Since(base)}, nil
						})
						if err != nil {
							t.Error(err)
							return
						}
						if c.role != coalesce.LocalFollower && c.role != coalesce.Cached {
							j.mu.Lock()
							j.returned[journey{replica, c.result.Run}] = time.Since(base)
							j.mu.Unlock()
						}
						answers[i] = append(answers[i], c)
					}
				})
			}
			wg.Wait()
			for i, of := range answers {
				for _, c := range of {
					j.check(t, i%replicas, c, maxAge)
				}
			}
			j.mu.Lock()
			tested := lost.Load() > 0 && (len(j.lateness["fetched"]) > 0 || maxAge == 0) && j.roles[coalesce.RemoteFollower] > 0
			if !tested {
				t.Errorf("nothing was tested: %d messages lost, roles %v", lost.Load(), j.roles)
			}
			defer j.mu.Unlock()
			t.Logf("%d calls, %d executions, %d messages lost, roles %v", replicas*callers*calls, runs.Load(), lost.Load(), j.roles)
			for path, late := range j.lateness {
				slices.Sort(late)
				t.Logf("%s: %d callers came after the end, by %v (median), %v (p99), %v (most)", path, len(late), late[len(late)/2], late[len(late)*99/100], late[len(late)-1])
			}
		})
	}
}

// wire returns the replica's wire, which writes into the journal.
func (j *journal) wire(t *testing.T, server *redisrig.Server, replica int, lost *atomic.Int64) *wire {
	return &wire{
		t: t, server: server,
		lose: func(frame []byte) bool {
			if bytes.Contains(frame, []byte(":control\r\n")) {
				return false
			}
			if rand.IntN(4) == 0 {
				lost.Add(1)
				return true
			}
			if run, _ := stampIn(frame); run > 0 {
				j.mu.Lock()
				j.delivered[journey{replica, run}] = true
				j.mu.Unlock()
			}
			return false
		},
		before: func(script string, args []any) error {
			if script != "finish" {
				return nil
			}
			if rand.IntN(4) == 0 {
				time.Sleep(rand.N(25 * time.Millisecond)) // on the network
			}
			return nil
		},
		after: func(script string, args []any, reply any, took time.Duration) {
			j.mu.Lock()
			defer j.mu.Unlock()
			if run, end := stampIn(args); script == "finish" {
				j.told[run] = time.Since(base) - end
			}
			if run, _ := stampIn(reply); script == "peek" && run > 0 {
				j.asked[journey{replica, run}] = time.Since(base) - took
			}
		},
	}
}

// check wants all calls to have returned.
func (j *journal) check(t *testing.T, replica int, c caller, maxAge time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.roles[c.role]++
	way := journey{replica, c.result.Run}
	late := c.arrived - c.result.End
	if (j.ran[way.run] == replica || j.delivered[way]) && c.arrived <= j.returned[way] {
		if late > 0 {
			j.lateness["own"] = append(j.lateness["own"], late)
		}
		return
	}
	if late > 0 {
		j.lateness["fetched"] = append(j.lateness["fetched"], late)
	}
	limit := maxAge + j.told[way.run]
	if asked, peeked := j.asked[way]; peeked {
		limit += max(0, j.returned[way]-asked)
	}
	if late > limit {
		t.Errorf("replica %d: a caller (%v) came %v after the end of flight %d of replica %d, and %v after who led it here had its result; its message delivered: %v; %v is allowed",
			replica, c.role, late, way.run, j.ran[way.run], c.arrived-j.returned[way], j.delivered[way], limit)
	}
}

// TestAfterForgetNobodyReadsWhatWasThereBefore writes, forgets and reads, again
// and again, while callers on every replica read all the time. It logs what the
// other replicas saw before the notice arrived.
func TestAfterForgetNobodyReadsWhatWasThereBefore(t *testing.T) {
	const replicas, readers = 3, 50
	rounds := 100
	switch {
	case *full:
		rounds = 1000
	case testing.Short():
		rounds = 20
	}
	f := newFleet[int64](t, replicas)
	var row atomic.Int64 // what the function reads, in the database's place
	read := func(context.Context) (int64, error) {
		v := row.Load()
		way := 2 * time.Millisecond
		if rand.IntN(10) == 0 {
			way = 20 * time.Millisecond // some flights outlast the notice
		}
		time.Sleep(rand.N(way)) // the answer's
		return v, nil
	}

	type reading struct {
		replica int
		arrived time.Time
		value   int64
	}
	readings := make([][]reading, replicas*readers)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range readings {
		wg.Go(func() {
			for !stop.Load() {
				time.Sleep(rand.N(2 * time.Millisecond)) // so that some come at every moment
				r := reading{replica: i % replicas, arrived: time.Now()}
				var err error
				if r.value, _, err = f.groups[r.replica].Do(context.Background(), "k", read); err != nil {
					t.Error(err)
				}
				readings[i] = append(readings[i], r)
			}
		})
	}

	forgotten := make([]time.Time, rounds+1)  // when Forget returned, by the value written before it
	everywhere := make([]time.Time, rounds+1) // when every replica had handled a message sent after it
	for v := int64(1); v <= int64(rounds); v++ {
		row.Store(v)
		if err := f.groups[v%replicas].Forget(context.Background(), "k"); err != nil {
			t.Fatal(err)
		}
		forgotten[v] = time.Now()
		f.garbageEverywhere()
		everywhere[v] = time.Now()
		time.Sleep(rand.N(3 * time.Millisecond)) // the load goes on
	}
	stop.Store(true)
	wg.Wait()

	window := make([]time.Duration, rounds+1) // after Forget, until the last old reading of another replica began
	old, after := 0, 0
	for _, of := range readings {
		for _, r := range of {
			for v := r.value + 1; v <= int64(rounds) && !r.arrived.Before(forgotten[v]); v++ {
				if r.replica == int(v%replicas) {
					t.Errorf("a caller of the replica that forgot came %v after Forget and got what was there before", r.arrived.Sub(forgotten[v]))
				}
				if r.arrived.After(everywhere[v]) {
					t.Errorf("a caller of another replica came after the notice and got what was there before")
				}
				old++
				window[v] = max(window[v], r.arrived.Sub(forgotten[v]))
			}
			after++
		}
	}
	if after < rounds {
		t.Errorf("only %d readings", after)
	}
	window = slices.DeleteFunc(window, func(d time.Duration) bool { return d == 0 })
	t.Logf("%d rounds, %d readings; rounds in which other replicas saw the old value after Forget had returned: %d, in %d readings", rounds, after, len(window), old)
	if n := len(window); n > 0 {
		slices.Sort(window)
		t.Logf("in those rounds, from Forget's return until the last old reading began: %v (median), %v (p99), %v (most)", window[n/2], window[n*99/100], window[n-1])
	}
}

// TestALocalFollowerOfAFlightThatHadEndedHasOneFlightTimeoutInAll lets a caller
// come when the flight that its replica follows has ended unnoticed.
func TestALocalFollowerOfAFlightThatHadEndedHasOneFlightTimeoutInAll(t *testing.T) {
	const flightTimeout = 20 * time.Second
	refused := foreignError("refused")
	for _, test := range []struct {
		name    string
		outcome string
		maxAge  time.Duration
		anew    bool
	}{
		{"a value", foreignOutcome("json", `"theirs"`), 0, true},
		{"a value within MaxAge", foreignOutcome("json", `"theirs"`), time.Hour, false},
		{"an error", refused, 0, true},
		{"an error within MaxAge", refused, time.Hour, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFleet[string](t, 1, distributed.WithFlightTimeout(flightTimeout), distributed.WithMaxAge(test.maxAge))
			g, client, ctx := f.groups[0], f.client(), context.Background()
			f.foreignLease("k", time.Minute)
			var deadline time.Time
			own := func(ctx context.Context) (string, error) {
				deadline, _ = ctx.Deadline()
				return "own", nil
			}
			do := func() <-chan answer[string] {
				answers := make(chan answer[string], 1)
				go func() {
					var a answer[string]
					a.val, a.role, a.err = g.Do(ctx, "k", own)
					answers <- a
				}()
				return answers
			}
			first := do()
			f.waitFollowers("k", 1)
			client.HSet(ctx, "fleetcall:{k}:result:"+foreignFlight, "finished", client.Time(ctx).Val().UnixMicro(), "outcome", test.outcome)
			client.Del(ctx, "fleetcall:{k}:lease")
			late := do()
			eventually(t, "the late caller waits for the first one's flight", func() bool { return g.Stats().Local.Waiting == 2 })
			came := time.Now()
			client.Publish(ctx, "fleetcall:{k}", "\x01\x06"+foreignFlight+noFinish+"\x00")
			if a := <-first; a.role != coalesce.RemoteFollower {
				t.Errorf("the first caller: %+v", a)
			}
			a := <-late
			if !test.anew {
				if a.val != "theirs" || a.role != coalesce.LocalFollower || a.err != nil {
					t.Errorf("the late caller: %+v", a)
				}
				return
			}
			if a.val != "own" || a.role != coalesce.Leader || a.err != nil {
				t.Errorf("the late caller: %+v", a)
			}
			if over := deadline.Sub(came.Add(flightTimeout)); over > 0 {
				t.Errorf("its function may run for %v longer than it may wait", over)
			}
		})
	}
}

// foreignError is an error as the replica that led foreignFlight would send it.
func foreignError(message string) string {
	return "\x01\x02" + foreignFlight + noFinish + "\x00" + `{"message":"` + message + `"}`
}

// garbageEverywhere returns when every replica has handled a message that was
// published on the control channel after it was called.
func (f *fleet[V]) garbageEverywhere() {
	f.t.Helper()
	handled := func() (n uint64) {
		for _, g := range f.groups {
			n += g.Stats().Distributed.Garbage
		}
		return n
	}
	want := handled() + uint64(len(f.groups))
	if err := f.client().Publish(context.Background(), "fleetcall:control", "garbage").Err(); err != nil {
		f.t.Fatal(err)
	}
	eventually(f.t, "every replica has the message", func() bool { return handled() >= want })
}
