package main

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// holding is a TCP proxy before one client, which holds one in so many of the client's
// writes, and with it what the same connection sends next.
type holding struct {
	addr     string
	upstream string
	oneIn    int // 0: none
	hold     time.Duration
	held     atomic.Int64

	listener net.Listener
	serving  sync.WaitGroup
	mu       sync.Mutex
	open     map[net.Conn]bool // nil: it is closed
}

func startHolding(upstream string, oneIn int, hold time.Duration) *holding {
	p := &holding{
		upstream: upstream, oneIn: oneIn, hold: hold,
		listener: value(net.Listen("tcp", "127.0.0.1:0")), open: map[net.Conn]bool{},
	}
	p.addr = p.listener.Addr().String()
	p.serving.Go(func() {
		for {
			client, err := p.listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				p.serving.Go(func() { p.serve(client) })
			}
		}
	})
	return p
}

// close closes every connection and returns when nothing of the proxy runs.
func (p *holding) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	for conn := range p.open {
		_ = conn.Close()
	}
	p.open = nil
	p.mu.Unlock()
	p.serving.Wait()
}

// keep has close close the connection, unless that has been called.
func (p *holding) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		return false
	}
	p.open[conn] = true
	return true
}

func (p *holding) drop(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, conn)
	_ = conn.Close()
}

func (p *holding) serve(client net.Conn) {
	defer p.drop(client)
	server, err := net.Dial("tcp", p.upstream)
	if err != nil {
		return
	}
	defer p.drop(server)
	if !p.keep(client) || !p.keep(server) {
		return
	}
	var replies sync.WaitGroup
	replies.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.Close() // ends the loop below
	})
	defer replies.Wait()
	defer func() { _ = server.Close() }()
	for buffer := make([]byte, 64<<10); ; {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		if p.oneIn > 0 && rand.IntN(p.oneIn) == 0 {
			p.held.Add(1)
			time.Sleep(p.hold) // the slow write
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
	}
}
