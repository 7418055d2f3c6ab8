package redislink

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

// fakeRedis is a hook that answers instead of a server. Answer gets the commands of
// one round trip, and sets what each has for a reply. Instead of a command of many keys, it
// gets a command for each.
type fakeRedis struct {
	answer func(trip []*redis.Cmd)
	refuse error // the reply to each command of many keys; nil: its parts are answered

	mu    sync.Mutex
	trips [][]*redis.Cmd
	sent  int             // commands, those of many keys among them
	evals int             // those of them that brought their source
	ctx   context.Context // of the last one
}

// DialHook makes fakeRedis a redis.Hook that connects to nothing.
func (*fakeRedis) DialHook(redis.DialHook) redis.DialHook {
	return func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") }
}

// ProcessHook makes fakeRedis a redis.Hook.
func (f *fakeRedis) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		f.take(ctx, cmd)
		return cmd.Err()
	}
}

// ProcessPipelineHook makes fakeRedis a redis.Hook.
func (f *fakeRedis) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		f.take(ctx, cmds...)
		return nil
	}
}

func (f *fakeRedis) take(ctx context.Context, cmds ...redis.Cmder) {
	var trip []*redis.Cmd
	parts := make([][]*redis.Cmd, len(cmds))
	for i, cmd := range cmds {
		parts[i] = apart(ctx, cmd.(*redis.Cmd))
		trip = append(trip, parts[i]...)
	}
	f.mu.Lock()
	f.trips, f.ctx = append(f.trips, trip), ctx
	f.sent += len(cmds)
	for _, cmd := range cmds {
		if cmd.Args()[0] == "eval" {
			f.evals++
		}
	}
	f.mu.Unlock()
	f.answer(trip)
	for i, cmd := range cmds {
		switch {
		case len(parts[i]) < 2:
		case f.refuse != nil:
			cmd.SetErr(f.refuse)
		default:
			assemble(cmd.(*redis.Cmd), parts[i])
		}
	}
}

// apart returns a command for each of a command's callers' keys: what many.lua makes of it.
func apart(ctx context.Context, cmd *redis.Cmd) (all []*redis.Cmd) {
	args := cmd.Args()
	n, scripted := args[2].(int)
	if !scripted || n == 0 || len(args) <= 3+n {
		return []*redis.Cmd{cmd}
	}
	keys, args := args[3:3+n], args[3+n:]
	each, many := args[0].(int)
	if !many {
		return []*redis.Cmd{cmd}
	}
	differing := args[3 : 3+args[2].(int)]
	common := args[3+len(differing):]
	own := common[args[1].(int):]
	for ; len(keys) > 0; keys = keys[each:] {
		one := append([]any{cmd.Args()[0], cmd.Args()[1], each}, keys[:each]...)
		one = append(one, common[:args[1].(int)]...)
		for _, place := range differing {
			one[2+each+place.(int)], own = own[0], own[1:]
		}
		all = append(all, redis.NewCmd(ctx, one...))
	}
	return all
}

// assemble gives a command of many keys the replies to its parts. If a script is missing,
// that is the reply to all.
func assemble(cmd *redis.Cmd, parts []*redis.Cmd) {
	list := make([]any, len(parts))
	for i, part := range parts {
		switch err := part.Err(); {
		case err == nil:
			list[i] = part.Val()
		case redis.HasErrorPrefix(err, "NOSCRIPT"), !isReply(err):
			cmd.SetErr(err)
			return
		default:
			list[i] = err
		}
	}
	cmd.SetVal(list)
}

// sizes returns how many commands each round trip had so far.
func (f *fakeRedis) sizes() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]int, len(f.trips))
	for i, trip := range f.trips {
		all[i] = len(trip)
	}
	return all
}

// commands returns what was sent, but for probes.
func (f *fakeRedis) commands() (all []*redis.Cmd) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, trip := range f.trips {
		if !isProbe(trip[0]) {
			all = append(all, trip...)
		}
	}
	return all
}

// keys returns the first key of each command that was sent, but for probes.
func (f *fakeRedis) keys() (all []string) {
	for _, cmd := range f.commands() {
		all = append(all, cmd.Args()[3].(string))
	}
	return all
}

func isProbe(cmd *redis.Cmd) bool {
	key, _ := cmd.Args()[3].(string)
	return strings.HasPrefix(key, "ns:probe")
}

// probes returns how many probes were sent.
func (f *fakeRedis) probes() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, trip := range f.trips {
		if isProbe(trip[0]) {
			n++
		}
	}
	return n
}

func succeed(trip []*redis.Cmd) {
	for _, cmd := range trip {
		cmd.SetVal(int64(1))
	}
}

// hold returns an answer that waits for release, and what receives once for each
// round trip that has begun.
func hold() (answer func([]*redis.Cmd), begun <-chan struct{}, release func()) {
	started, released := make(chan struct{}, 1000), make(chan struct{})
	answer = func(trip []*redis.Cmd) {
		started <- struct{}{}
		<-released
		succeed(trip)
	}
	return answer, started, func() { close(released) }
}

const timeout = time.Minute

// newLink returns a link to a fake that answers so. Functions that config leaves
// out do nothing.
func newLink(t *testing.T, config Config, answer func([]*redis.Cmd)) (*Link, *fakeRedis) {
	t.Helper()
	fake := &fakeRedis{answer: answer}
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379"}) // a name would be looked up
	client.AddHook(fake)
	t.Cleanup(func() { _ = client.Close() })
	return newLinkTo(client, config), fake
}

func newLinkTo(client redis.UniversalClient, config Config) *Link {
	if config.Timeout == 0 {
		config.Timeout = timeout
	}
	if config.OnCommand == nil {
		config.OnCommand = func(string, time.Duration, string) {}
	}
	if config.OnChange == nil {
		config.OnChange = func(Change) {}
	}
	if config.OnUp == nil {
		config.OnUp = func() {}
	}
	if config.Survive == nil {
		config.Survive = func() {}
	}
	config.Namespace = "ns"
	return New(client, config)
}

var settings = protocol.SettingsOf("replica", time.Second, time.Minute, 1, time.Second, 0)

// join is a small command, and lease the first of its keys.
func join(key string) protocol.Command {
	r := protocol.JoinRequest{Names: protocol.NewNames(protocol.NewSpace("ns", "g", 0, "fleet-id"), key), Settings: &settings}
	return r.Command()
}

func lease(key string) string { return "ns:g:{" + key + "}:lease" }

// finish is a command that moves so many bytes.
func finish(key string, bytes int) protocol.Command {
	r := protocol.FinishRequest{Names: protocol.NewNames(protocol.NewSpace("ns", "g", 0, "fleet-id"), key), Settings: &settings, Outcome: make([]byte, bytes)}
	return r.Command()
}

// request is one whose answer a test can wait for.
type request struct {
	*Request
	answered chan struct{}
}

func newRequest(l *Link, command protocol.Command) request {
	r := request{l.NewRequest(context.Background(), command), make(chan struct{})}
	r.Then = func() { close(r.answered) }
	return r
}

func send(l *Link, command protocol.Command) request {
	r := newRequest(l, command)
	l.Send(r.Request)
	return r
}

// taken says whether Then has been called.
func (r request) taken() bool {
	select {
	case <-r.answered:
		return true
	default:
		return false
	}
}
