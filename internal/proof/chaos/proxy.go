package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
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

// spoil does to what Redis sends through the proxy what a toxic of
// https://github.com/Shopify/toxiproxy does, until undo is called.
func (p proxy) spoil(toxic string, attributes map[string]int) (undo func() error, err error) {
	description, err := json.Marshal(map[string]any{"type": toxic, "stream": "downstream", "attributes": attributes})
	if err != nil {
		return nil, err
	}
	added, err := p.Toxics.AddToxicJson(bytes.NewReader(description))
	if err != nil {
		return nil, fmt.Errorf("chaos: adding %s to a proxy: %w", toxic, err)
	}
	return func() error { return p.Toxics.RemoveToxic(context.Background(), added.Name) }, nil
}
