package main

import (
	"fmt"
	"time"

	"github.com/valyala/fasthttp"
)

// measureLoneRequest compares a request that has nobody to share with, through the proxy,
// to what it takes through those that only hand it on.
func measureLoneRequest(b *bench, s *section, o *origin, r rivals, redis string) {
	calls, rounds := 200, b.rounds(15)
	if b.quick {
		calls = 20
	}
	client := newClient(redis)
	defer func() { _ = client.Close() }()
	const ours, alone, bare, nginx, direct, ping = "fleetcall proxy", "fleetcall proxy, not merged", "bare ReverseProxy", "nginx", "no proxy", "Redis, a PING"
	next := 0
	all := map[string][]float64{}
	// Each has its turn for a long round, of calls of which nobody is near.
	apart := func(name string, call func()) contender {
		return contender{name, func() float64 {
			begin := len(all[name])
			for range calls {
				began := time.Now()
				call()
				all[name] = append(all[name], float64(time.Since(began)))
				time.Sleep(time.Millisecond)
			}
			return median(all[name][begin:])
		}}
	}
	request := func(name, base string, fields ...string) contender {
		server := &fasthttp.HostClient{Addr: address(base), MaxConns: 1, NoDefaultUserAgentHeader: true}
		asked, answered := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
		for _, field := range fields {
			asked.Header.Set(field, "x")
		}
		return apart(name, func() {
			next++
			asked.SetRequestURI(fmt.Sprintf("%s/page/%d", base, next))
			must(server.Do(asked, answered))
			if status := answered.StatusCode(); status != fasthttp.StatusOK {
				must(fmt.Errorf("%s: status %d", name, status))
			}
		})
	}
	took := interleave(rounds, []contender{
		request(ours, r.ours[0]), request(alone, r.ours[0], "Cookie"), request(bare, r.bare[0]), request(nginx, r.nginx), request(direct, o.url),
		apart(ping, func() { must(client.Ping(background()).Err()) }),
	})
	s.ratio("lone request, p50", took[ours], 1.3*took[bare]+took[ping], "1.3 times a bare ReverseProxy and a Redis round trip", 1, false, microseconds)
	t := table{Title: "A lone request, 1 ms apart, each for another page", Columns: []string{"", "p50", "p99", "beside bare ReverseProxy"}}
	for _, name := range []string{ours, alone, bare, nginx, direct, ping} {
		t.add(name, microseconds(took[name]), microseconds(quantile(all[name], 0.99)), fmt.Sprintf("%.2f", took[name]/took[bare]))
	}
	t.Note = "Not merged is a request with a cookie: it asks Redis nothing."
	s.Tables = append(s.Tables, t)
}
