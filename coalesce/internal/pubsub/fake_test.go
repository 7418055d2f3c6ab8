package pubsub

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// fakeServer is a Redis for subscriptions, without a network: its time is the bubble's.
type fakeServer struct {
	mu       sync.Mutex
	refuses  bool // every connection
	deaf     bool // it reads, and answers nothing but the handshake
	unable   bool // it refuses to subscribe
	moved    bool // it says that another server has the channel
	dials    int
	conns    map[*fakeConn]bool
	commands []string // what it was sent, without the handshake
}

type fakeConn struct {
	net.Conn
	channels map[string]bool // guarded by the server's mu
	out      chan string     // what is written: as in a network, nobody waits for the reader
	closed   chan struct{}
}

// dial is a client's dialer.
func (f *fakeServer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if err := ctx.Err(); err != nil { // as a net.Dialer
		return nil, err
	}
	f.mu.Lock()
	f.dials++
	refuses := f.refuses
	f.mu.Unlock()
	if refuses {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	}
	here, there := net.Pipe()
	c := &fakeConn{Conn: there, channels: map[string]bool{}, out: make(chan string, 10*maxIdle), closed: make(chan struct{})}
	f.mu.Lock()
	f.conns[c] = true
	f.mu.Unlock()
	go f.serve(c)
	return here, nil
}

func (f *fakeServer) serve(c *fakeConn) {
	defer func() {
		f.mu.Lock()
		delete(f.conns, c)
		f.mu.Unlock()
		close(c.closed)
		_ = c.Close()
	}()
	go c.flush()
	r := bufio.NewReader(c)
	for {
		command, err := readCommand(r)
		if err != nil {
			return
		}
		c.write(f.answer(c, command))
	}
}

// readCommand reads one in RESP: a list of texts.
func readCommand(r *bufio.Reader) ([]string, error) {
	header := func() (int, error) {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := header()
	if err != nil {
		return nil, err
	}
	words := make([]string, n)
	for i := range words {
		length, err := header()
		if err != nil {
			return nil, err
		}
		b := make([]byte, length+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		words[i] = string(b[:length])
	}
	return words, nil
}

func (f *fakeServer) answer(c *fakeConn, command []string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	name, args := strings.ToUpper(command[0]), command[1:]
	if name == "HELLO" { // the client holds a lock until it is answered
		return "-ERR unknown command\r\n"
	}
	f.commands = append(f.commands, strings.Join(append([]string{name}, args...), " "))
	if f.deaf {
		return ""
	}
	answer := ""
	if f.unable && name == "SUBSCRIBE" {
		return "-NOPERM this user has no permissions to run the 'subscribe' command\r\n"
	}
	if f.moved && name == "SUBSCRIBE" {
		return "-MOVED 1 127.0.0.1:1\r\n"
	}
	switch name {
	case "SUBSCRIBE", "UNSUBSCRIBE":
		for _, channel := range args {
			c.channels[channel] = name == "SUBSCRIBE"
			answer += push(strings.ToLower(name), channel) + ":1\r\n"
		}
	case "PING":
		answer = "*2\r\n" + bulk("pong") + bulk("")
	default:
		answer = "-ERR unknown command\r\n"
	}
	return answer
}

// push begins a message of three parts, the last of which is yet to come.
func push(kind, channel string) string { return "*3\r\n" + bulk(kind) + bulk(channel) }

func bulk(text string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text) }

func (c *fakeConn) write(text string) { c.out <- text }

func (c *fakeConn) flush() {
	for {
		select {
		case text := <-c.out:
			_, _ = io.WriteString(c, text)
		case <-c.closed:
			return
		}
	}
}

// subscribed returns the connections that have subscribed to a channel.
func (f *fakeServer) subscribed(channel string) (all []*fakeConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		if c.channels[channel] {
			all = append(all, c)
		}
	}
	return all
}

// publish returns when every subscriber has read the message, and handled it.
func (f *fakeServer) publish(channel, message string) {
	for _, c := range f.subscribed(channel) {
		c.write(push("message", channel) + bulk(message))
	}
	synctest.Wait()
}

// unsubscribe ends subscriptions that nobody asked it to end.
func (f *fakeServer) unsubscribe(channel string) {
	for _, c := range f.subscribed(channel) {
		f.mu.Lock()
		c.channels[channel] = false
		f.mu.Unlock()
		c.write(push("unsubscribe", channel) + ":0\r\n")
	}
}

// cut ends all connections.
func (f *fakeServer) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.Close()
	}
}

// change changes how the server behaves from now on.
func (f *fakeServer) change(how func(*fakeServer)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how(f)
}

// sent returns the commands that begin with one of the names, and forgets all.
func (f *fakeServer) sent(names ...string) (some []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, command := range f.commands {
		name, _, _ := strings.Cut(command, " ")
		if slices.Contains(names, name) {
			some = append(some, command)
		}
	}
	f.commands = nil
	return some
}

func (f *fakeServer) dialled() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dials
}

// heard counts what a Config's functions were told. They are called on reading loops.
type heard struct {
	mu                           sync.Mutex
	control                      []string
	connects, failures, garbages int
	messages                     int // of any kind
	deaf                         int // failures of a connection that somebody waits on
}

func (h *heard) config() Config {
	locked := func(f func()) func() {
		return func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			f()
		}
	}
	return Config{
		Control: "control", Beat: beat, Timeout: timeout,
		OnControl: func(message string) { locked(func() { h.control = append(h.control, message) })() },
		OnHeard:   func(string) { locked(func() { h.messages++ })() },
		OnConnect: locked(func() { h.connects++ }),
		OnFailure: locked(func() { h.failures++ }),
		OnDeaf:    func(string) { locked(func() { h.deaf++ })() },
		OnGarbage: locked(func() { h.garbages++ }),
	}
}

func (h *heard) want(t *testing.T, connects, failures, garbages int) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.connects != connects || h.failures != failures || h.garbages != garbages {
		t.Errorf("heard of %d connections, %d failures and %d messages of garbage; want %d, %d and %d", h.connects, h.failures, h.garbages, connects, failures, garbages)
	}
}

const (
	beat    = time.Second
	timeout = 300 * time.Millisecond
)

// inBubble runs a test whose time is fake. When it ends, no goroutine may be left.
func inBubble(t *testing.T, test func(t *testing.T, s *Subscriptions, server *fakeServer, h *heard)) {
	synctest.Test(t, func(t *testing.T) {
		server := &fakeServer{conns: map[*fakeConn]bool{}}
		client := redis.NewClient(&redis.Options{
			Addr: "127.0.0.1:1", Dialer: server.dial, DialerRetries: 1, MaxRetries: -1, Protocol: 2, DisableIdentity: true, ContextTimeoutEnabled: true,
		})
		h := &heard{}
		s := Open(client, h.config())
		defer func() { // after Fatal, too: else the bubble's time would go on for ever
			s.Close()
			_ = client.Close()
			server.cut()
		}()
		synctest.Wait()
		test(t, s, server, h)
	})
}

// confirmed returns a waiter on a channel that the server has confirmed, without news.
func confirmed(t *testing.T, s *Subscriptions, channel string) *Waiter {
	t.Helper()
	w := s.Subscribe(channel)
	synctest.Wait()
	if n := w.Take(flight); !n.Confirmed {
		t.Fatalf("%s is not confirmed: %+v", channel, n)
	}
	w.woken()
	return w
}

func (s *Subscriptions) counts() (channels, idle int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.channels), s.idle.Len()
}

// woken says whether w was woken, and forgets it.
func (w *Waiter) woken() bool {
	select {
	case <-w.Wake:
		return true
	default:
		return false
	}
}

const flight = "foreign-flight-22chars"

// outcome is a message with the number n.
func outcome(n int) string {
	return string(wire.Outcome{Kind: wire.KindValue, Flight: flight, Codec: "json", Payload: []byte(strconv.Itoa(n))}.Encode())
}
