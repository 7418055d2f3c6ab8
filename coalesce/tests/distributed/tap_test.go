package distributed_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// tap is what one replica exchanges with Redis, as a test sees and disturbs it.
type tap struct {
	t      testing.TB
	server *redisrig.Server
	lose   func(frame []byte) bool // which Pub/Sub messages do not arrive; nil: all do
	before func(script string, args []any) error
	after  func(script string, args []any, reply any, took time.Duration)
}

// group starts a replica on the tap.
func wiredGroup[V any](w *tap, opts ...distributed.Option) *replica[V] {
	w.t.Helper()
	client := redis.NewClient(&redis.Options{Addr: w.server.Addr, Dialer: w.dial})
	client.AddHook(w)
	g := openCalm[V](w.t, client, opts...)
	w.t.Cleanup(func() {
		if err := g.Close(context.Background()); err != nil {
			w.t.Errorf("Close: %v", err)
		}
		_ = client.Close()
	})
	return g
}

func (w *tap) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil || w.lose == nil {
		return conn, err
	}
	return &lossyConn{Conn: conn, lose: w.lose}, nil
}

// DialHook makes tap a redis.Hook.
func (w *tap) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook makes tap a redis.Hook that is asked before and told after each
// script.
func (w *tap) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
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

// ProcessPipelineHook makes tap a redis.Hook: scripts that come together are
// sent together.
func (w *tap) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
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

func (w *tap) stops(cmd redis.Cmder) bool {
	script := scriptOf(cmd)
	if script == "" || w.before == nil {
		return false
	}
	err := w.before(script, cmd.Args())
	cmd.SetErr(err)
	return err != nil
}

// tell tells of a script, once for each caller's key that it is for.
func (w *tap) tell(cmd redis.Cmder, took time.Duration) {
	script := scriptOf(cmd)
	reply, ok := cmd.(*redis.Cmd)
	if !ok || script == "" || cmd.Err() != nil || w.after == nil {
		return
	}
	replies := []any{reply.Val()}
	if n := callersKeys(cmd); n > 1 {
		replies = reply.Val().([]any)
	}
	for _, reply := range replies {
		w.after(script, cmd.Args(), reply, took)
	}
}

func scriptOf(cmd redis.Cmder) string {
	if len(cmd.Args()) < 2 {
		return ""
	}
	source, _ := cmd.Args()[1].(string)
	return scriptNames()[source]
}

// callersKeys returns how many callers' keys a script is for.
func callersKeys(cmd redis.Cmder) int {
	keys, args := cmd.Args()[2].(int), cmd.Args()[3:]
	if each, many := args[keys].(int); many {
		return keys / each
	}
	return 1
}

// luaDir is where the scripts are.
const luaDir = "../../internal/protocol/lua"

// scriptNames has the name of each step by its script's source and SHA, and by those of the
// script that takes the step for many keys.
var scriptNames = sync.OnceValue(func() map[string]string {
	names := map[string]string{}
	files, err := os.ReadDir(luaDir)
	if err != nil {
		panic(err)
	}
	sources := map[string]string{}
	for _, file := range files {
		source, err := os.ReadFile(luaDir + "/" + file.Name())
		if err != nil {
			panic(err)
		}
		sources[strings.TrimSuffix(file.Name(), ".lua")] = string(source)
	}
	for name, source := range sources {
		for _, source := range []string{source, strings.Replace(sources["many"], "--[[step]]\n", sharedClock.Replace(source), 1)} {
			names[source], names[redis.NewScript(source).Hash()] = name, name
		}
	}
	return names
})

// sharedClock is what the script for many keys makes of a step's.
var sharedClock = strings.NewReplacer("redis.call('TIME')", "clock()", "call('TIME')", "clock()")

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
