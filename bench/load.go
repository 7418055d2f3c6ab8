package main

import (
	"errors"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/valyala/fasthttp"
	"golang.org/x/sync/errgroup"
)

// answers is what one load got.
type answers struct {
	ok, failed     int
	took           time.Duration
	p50, p99, p999 time.Duration
}

func (a answers) perSecond() float64 { return float64(a.ok) / a.took.Seconds() }

// load asks for url on so many connections, each asking again as soon as it was
// answered, for the given time. What is under way at its end is not counted. The
// client is fasthttp's, which leaves more of the cores to the servers.
func load(url, addr string, connections int, lasting time.Duration) answers {
	clients := connectAll(addr, connections)
	histogram := hdrhistogram.New(1, time.Minute.Microseconds(), 3)
	var a answers
	var mu sync.Mutex
	var wg sync.WaitGroup
	begin := time.Now()
	end := begin.Add(lasting)
	for _, client := range clients {
		wg.Go(func() {
			request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
			defer fasthttp.ReleaseRequest(request)
			defer fasthttp.ReleaseResponse(response)
			request.SetRequestURI(url)
			for {
				asked := time.Now()
				err := client.DoDeadline(request, response, end)
				took := time.Since(asked)
				if errors.Is(err, fasthttp.ErrTimeout) || !time.Now().Before(end) {
					return // it was under way at the end
				}
				mu.Lock()
				if err == nil && response.StatusCode() == fasthttp.StatusOK {
					a.ok++
					_ = histogram.RecordValue(max(took.Microseconds(), 1)) // under a minute: lasting is
				} else {
					a.failed++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	a.took = time.Since(begin)
	for _, client := range clients {
		client.CloseIdleConnections()
	}
	us := func(q float64) time.Duration {
		return time.Duration(histogram.ValueAtQuantile(q)) * time.Microsecond
	}
	a.p50, a.p99, a.p999 = us(50), us(99), us(99.9)
	return a
}

// connectAll returns clients of one connection each, which is open.
func connectAll(addr string, n int) []*fasthttp.HostClient {
	clients := make([]*fasthttp.HostClient, n)
	var group errgroup.Group
	group.SetLimit(64)
	for i := range clients {
		clients[i] = &fasthttp.HostClient{Addr: addr, MaxConns: 1, MaxIdemponentCallAttempts: 1, NoDefaultUserAgentHeader: true}
		group.Go(func() error {
			status, _, err := clients[i].Get(nil, "http://"+addr+"/livez")
			if err == nil && status >= 500 {
				return errNotServing
			}
			return err
		})
	}
	must(group.Wait())
	return clients
}
