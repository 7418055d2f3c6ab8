package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"math/rand/v2"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"
)

// proxy stands between one replica and Redis.
type proxy struct{ *toxiproxy.Proxy }

func startProxy(name, upstream string) (proxy, error) {
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := proxy{toxiproxy.NewProxy(server, name, "127.0.0.1:0", upstream)}
	if err := p.Start(); err != nil {
		return proxy{}, fmt.Errorf("chaos: starting a proxy: %w", err)
	}
	return p, nil
}

// The directions of a connection, as toxiproxy names them.
const (
	replies  = "downstream"
	commands = "upstream"
)

// spoil does to what goes through the proxy in a direction what a toxic of
// https://github.com/Shopify/toxiproxy does, until undo is called.
func (p proxy) spoil(direction, toxic string, attributes map[string]int) (undo func() error, err error) {
	name := toxic + " " + direction
	description, err := json.Marshal(map[string]any{"name": name, "type": toxic, "stream": direction, "attributes": attributes})
	if err != nil {
		return nil, err
	}
	if _, err := p.Toxics.AddToxicJson(bytes.NewReader(description)); err != nil {
		return nil, fmt.Errorf("chaos: adding %s to a proxy: %w", toxic, err)
	}
	return func() error { return p.Toxics.RemoveToxic(context.Background(), name) }, nil
}

// holdToxic holds one in so many of what arrives at a time, and all that comes after it
// on its connection.
type holdToxic struct {
	OneIn int `json:"one_in"`
	Hold  int `json:"hold"` // milliseconds
}

func init() {
	toxics.Register("hold", new(holdToxic))
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxics write to a logger of their own
}

// Pipe makes it a toxics.Toxic.
func (t *holdToxic) Pipe(stub *toxics.ToxicStub) {
	for {
		select {
		case <-stub.Interrupt:
			return
		case chunk := <-stub.Input:
			if chunk == nil {
				stub.Close()
				return
			}
			if rand.IntN(t.OneIn) > 0 {
				stub.Output <- chunk
				continue
			}
			select {
			case <-time.After(time.Duration(t.Hold) * time.Millisecond):
				stub.Output <- chunk
			case <-stub.Interrupt:
				stub.Output <- chunk // the fault is over
				return
			}
		}
	}
}
