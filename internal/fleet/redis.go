package fleet

import (
	"fmt"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// embeddedRedis is a Redis server in this process.
type embeddedRedis struct {
	server *miniredis.Miniredis
	stop   chan struct{}
	done   sync.WaitGroup
}

func startEmbeddedRedis() (*embeddedRedis, error) {
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("fleetcall: starting the embedded Redis: %w", err)
	}
	r := &embeddedRedis{server: server, stop: make(chan struct{})}
	r.done.Go(r.advanceClock)
	return r, nil
}

// advanceClock makes keys expire. The clock of miniredis stands still until FastForward
// moves it.
func (r *embeddedRedis) advanceClock() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-r.stop:
			return
		case <-tick.C:
			now := time.Now()
			r.server.FastForward(now.Sub(last))
			last = now
		}
	}
}

func (r *embeddedRedis) url() string { return "redis://" + r.server.Addr() }

func (r *embeddedRedis) close() {
	close(r.stop)
	r.done.Wait()
	r.server.Close()
}
