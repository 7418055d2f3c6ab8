package redislink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

var (
	errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: &os.SyscallError{Syscall: "connect", Err: syscall.ECONNREFUSED}}
	errReset   = &net.OpError{Op: "read", Net: "tcp", Err: &os.SyscallError{Syscall: "read", Err: syscall.ECONNRESET}}
	errLate    = &net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}
)

type failure struct {
	err       error
	kind      string
	neverSent bool
}

// failures returns errors as the client gives them, those of a server read by it.
func failures(t *testing.T) (all []failure) {
	all = append(all, clientFailures...)
	for _, f := range serverFailures {
		all = append(all, failure{replied(t, f.reply), f.kind, true})
	}
	return all
}

// replied returns the error that a client makes of what a server replied.
func replied(t *testing.T, reply string) error {
	t.Helper()
	client := redis.NewClient(&redis.Options{
		Protocol: 2, DisableIdentity: true, MaxRetries: -1,
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() {
				b := make([]byte, 1024)
				for n, err := there.Read(b); err == nil; n, err = there.Read(b) {
					answer := "-" + reply + "\r\n"
					if bytes.Contains(bytes.ToLower(b[:n]), []byte("hello")) {
						answer = "-ERR unknown command\r\n"
					}
					_, _ = there.Write([]byte(answer))
				}
			}()
			return here, nil
		},
	})
	defer client.Close()
	err := client.Do(context.Background(), "evalsha").Err()
	if err == nil || err.Error() != reply {
		t.Fatalf("the client makes %v of %q", err, reply)
	}
	return err
}

var serverFailures = []struct{ reply, kind string }{
	{"OOM command not allowed when used memory > 'maxmemory'.", "oom"},
	{"READONLY You can't write against a read only replica.", "readonly"},
	{"LOADING Redis is loading the dataset in memory", "loading"},
	{"CLUSTERDOWN Hash slot not served", "cluster"},
	{"MASTERDOWN Link with MASTER is down", "cluster"},
	{"TRYAGAIN Multiple keys request during rehashing of slot", "cluster"},
	{"NOAUTH Authentication required.", "auth"},
	{"WRONGPASS invalid username-password pair or user is disabled.", "auth"},
	{"NOPERM this user has no permissions to run the 'evalsha' command", "auth"},
	{"ERR max number of clients reached", "maxclients"},
	{"ERR unknown command 'evalsha'", "reply"},
	{"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.", "misconf"},
	{"NOREPLICAS Not enough good replicas to write.", "noreplicas"},
}

var clientFailures = []failure{
	{context.DeadlineExceeded, "timeout", false},
	{errLate, "timeout", false},
	{unanswered{context.DeadlineExceeded}, "timeout", false},
	{unanswered{errRefused}, "connection", false},
	{io.EOF, "connection", false},
	{errReset, "connection", false},
	{errRefused, "connection", true},
	{errors.New("a hook's own"), "connection", false},
	{ErrUnconfirmed, "subscription", false},
	{redis.ErrPoolTimeout, "pool", true},
	{fmt.Errorf("%w: %q", protocol.ErrReply, "what"), "reply", false},
	{ErrServerDown, DownKind, true},
}

func TestEachFailureHasItsKind(t *testing.T) {
	all, seen := failures(t), map[string]bool{}
	for _, f := range all {
		for _, err := range []error{f.err, fmt.Errorf("fleetcall: wrapped: %w", f.err)} {
			if got := FailureKind(err); got != f.kind {
				t.Errorf("%v is of kind %q, not %q", err, got, f.kind)
			}
			if got := NeverSent(err); got != f.neverSent {
				t.Errorf("%v: never sent: %v, not %v", err, got, f.neverSent)
			}
		}
		seen[f.kind] = true
	}
	for _, kind := range append(FailureKinds(), DownKind) {
		if !seen[kind] {
			t.Errorf("no failure of this test is of kind %q", kind)
		}
		delete(seen, kind)
	}
	if len(seen) > 0 {
		t.Errorf("FailureKinds leaves out %v", seen)
	}
}

// TestEachFailureIsCountedByKind has a command fail in every way, and tells what
// OnCommand hears of it.
func TestEachFailureIsCountedByKind(t *testing.T) {
	for _, f := range failures(t) {
		var heard []string
		config := Config{OnCommand: func(step string, _ time.Duration, kind string) {
			if step == "join" {
				heard = append(heard, kind)
			}
		}}
		l, _ := newLink(t, config, func(trip []*redis.Cmd) {
			if isProbe(trip[0]) {
				succeed(trip)
			} else {
				trip[0].SetErr(f.err)
			}
		})
		if _, err := l.Do(context.Background(), join("k")); !errors.Is(err, f.err) {
			t.Errorf("%v became %v", f.err, err)
		}
		l.Count("subscription")
		l.Close()
		want := map[string]uint64{"subscription": 1}
		if f.kind != DownKind {
			want[f.kind]++
		}
		total, byKind := l.Counts()
		if f.kind == DownKind && len(heard) == 0 && total == 1 {
			continue // it was not sent
		}
		if total != 2 || !maps.Equal(byKind, want) || !slices.Equal(heard, []string{f.kind}) {
			t.Errorf("%v: %d failures, %v; OnCommand heard %q", f.err, total, byKind, heard)
		}
	}
}

func TestAClientThatCannotBeUsedIsRefused(t *testing.T) {
	ring := redis.NewRing(&redis.RingOptions{})
	defer ring.Close()
	var none *redis.Client
	for name, client := range map[string]redis.UniversalClient{"no client": nil, "a nil client": none, "a ring": ring} {
		if Check(client) == nil {
			t.Errorf("%s is taken", name)
		}
	}
	client := redis.NewClient(&redis.Options{})
	defer client.Close()
	if err := Check(client); err != nil {
		t.Errorf("a client is refused: %v", err)
	}
}

// TestAClientIsPromptWhenNothingOfItIgnoresTheContext sets each option that may keep
// a caller for longer than its command's time.
func TestAClientIsPromptWhenNothingOfItIgnoresTheContext(t *testing.T) {
	prompt := func(change func(*redis.Options)) bool {
		o := &redis.Options{ContextTimeoutEnabled: true}
		change(o)
		client := redis.NewClient(o)
		defer client.Close()
		return keepsDeadlines(client)
	}
	if !prompt(func(*redis.Options) {}) {
		t.Error("a client with ContextTimeoutEnabled is not prompt")
	}
	for name, change := range map[string]func(*redis.Options){
		"without ContextTimeoutEnabled": func(o *redis.Options) { o.ContextTimeoutEnabled = false },
		"no read timeout":               func(o *redis.Options) { o.ReadTimeout = -2 },
		"no write timeout":              func(o *redis.Options) { o.WriteTimeout = -2 },
		"a limiter":                     func(o *redis.Options) { o.Limiter = limiter{} },
		"OnConnect":                     func(o *redis.Options) { o.OnConnect = func(context.Context, *redis.Conn) error { return nil } },
		"a credentials provider":        func(o *redis.Options) { o.CredentialsProvider = func() (string, string) { return "", "" } },
		"a credentials provider with a context": func(o *redis.Options) {
			o.CredentialsProviderContext = func(context.Context) (string, string, error) { return "", "", nil }
		},
	} {
		if prompt(change) {
			t.Errorf("%s: the client is taken for prompt", name)
		}
	}
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}, ContextTimeoutEnabled: true})
	defer cluster.Close()
	if keepsDeadlines(cluster) {
		t.Error("a ClusterClient is taken for prompt")
	}
}

// limiter is a redis.Limiter that allows everything.
type limiter struct{}

func (limiter) Allow() error       { return nil }
func (limiter) ReportResult(error) {}

// TestACommandsOwnFaultIsNotItsServersOrItsClients is about whether another command would
// fare better.
func TestACommandsOwnFaultIsNotItsServersOrItsClients(t *testing.T) {
	for _, reply := range []string{"ERR max request size exceeded", "NOPERM this user has no permissions to run the 'evalsha' command"} {
		if err := replied(t, reply); !OwnFault(err) {
			t.Errorf("%v is not said to be the command's fault", err)
		}
	}
	for _, reply := range []string{"OOM command not allowed when used memory > 'maxmemory'.", "LOADING Redis is loading the dataset in memory", "TRYAGAIN Multiple keys request during rehashing of slot"} {
		if err := replied(t, reply); OwnFault(err) {
			t.Errorf("%v is said to be the command's fault", err)
		}
	}
	for _, err := range []error{context.DeadlineExceeded, io.EOF, errReset, unanswered{errRefused}} {
		if !OwnFault(err) {
			t.Errorf("%v is not said to be the command's fault", err)
		}
	}
	for _, err := range []error{errRefused, redis.ErrPoolTimeout, ErrServerDown} {
		if OwnFault(err) {
			t.Errorf("%v is said to be the command's fault", err)
		}
	}
}

func TestWhatAScriptsCommandIsAnsweredIsTheScriptsError(t *testing.T) {
	const before = "ERR Error running script (call to f_0fbd19fe19b6cfe2bd052f1897bcd8158f2dc189): @user_script:112: "
	for _, c := range []struct{ reply, want, kind string }{
		{before + "@user_script: 112: -OOM command not allowed when used memory > 'maxmemory'.", "OOM command not allowed when used memory > 'maxmemory'.", "oom"},
		{before + "@user_script: 112: -MISCONF Redis is configured to save RDB snapshots.", "MISCONF Redis is configured to save RDB snapshots.", "misconf"},
		{before + "attempt to index a nil value", before + "attempt to index a nil value", "reply"},
		{"OOM command not allowed: - not even this", "OOM command not allowed: - not even this", "oom"},
	} {
		err := ofScript(replied(t, c.reply))
		if err == nil || err.Error() != c.want || FailureKind(err) != c.kind || !isReply(err) {
			t.Errorf("%q: %v, of kind %s", c.reply, err, FailureKind(err))
		}
	}
	if err := ofScript(nil); err != nil {
		t.Error(err)
	}
}
