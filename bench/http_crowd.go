package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// measureCrowd measures how long those wait who ask for one slow page at the same time.
func measureCrowd(b *bench, s *section, o *origin, r rivals) {
	crowds, rounds := []int{10, 100, 1000}, b.rounds(7)
	if b.quick {
		crowds = []int{10, 100}
	}
	const ours, balanced, bare, locked = "fleetcall proxy, 3 replicas", "fleetcall proxy, 3 replicas behind nginx", "bare ReverseProxy, 3 of them", "nginx, proxy_cache_lock"
	t := table{
		Title:   fmt.Sprintf("A crowd asks for one page that takes %v", slow),
		Columns: []string{"", "at once", "p50", "p99", "longest", "requests upstream"},
	}
	waits := chart{File: "http-crowd.svg", Title: "A crowd asks for one page that takes 500 ms: p99", X: "requests at once", Y: "milliseconds"}
	lines := map[string]*line{}
	next := 0
	for _, n := range crowds {
		p50, longest, upstream := map[string][]float64{}, map[string][]float64{}, map[string][]float64{}
		crowd := func(name string, bases ...string) contender {
			return contender{name, func() float64 {
				next++
				var took []float64
				asked := o.during(func() { took = crowdTakes(bases, fmt.Sprintf("/slow/%d", next), n) })
				p50[name], longest[name] = append(p50[name], median(took)), append(longest[name], quantile(took, 1))
				upstream[name] = append(upstream[name], float64(asked))
				return quantile(took, 0.99)
			}}
		}
		p99 := interleave(rounds, []contender{crowd(ours, r.ours...), crowd(balanced, r.balanced), crowd(bare, r.bare...), crowd(locked, r.locked)})
		for _, name := range []string{ours, balanced, bare, locked} {
			t.add(name, thousands(n), milliseconds(median(p50[name])), milliseconds(p99[name]), milliseconds(median(longest[name])), thousands(int(median(upstream[name]))))
			if lines[name] == nil {
				lines[name] = &line{Name: name}
			}
			lines[name].add(float64(n), p99[name]/1e6)
		}
		if n == 1000 {
			s.within("1,000 at once, a page of 500 ms, p99", p99[ours], 650e6, milliseconds)
			s.limit("1,000 at once, requests upstream", quantile(upstream[ours], 1), 1)
		}
	}
	for _, name := range []string{ours, balanced, bare, locked} {
		waits.Lines = append(waits.Lines, *lines[name])
	}
	s.Tables, s.Charts = append(s.Tables, t), append(s.Charts, waits)
}

// crowdTakes has so many clients, which are connected to one of the bases each, ask for a
// page at the same time, and returns how many nanoseconds each waited for it.
func crowdTakes(bases []string, path string, n int) []float64 {
	var clients []*fasthttp.HostClient
	for i, base := range bases {
		clients = append(clients, connectAll(address(base), (n+i)/len(bases))...)
	}
	took, errs := make([]float64, len(clients)), make([]error, len(clients))
	release := make(chan struct{})
	var group sync.WaitGroup
	for i, client := range clients {
		group.Go(func() {
			request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
			defer fasthttp.ReleaseRequest(request)
			defer fasthttp.ReleaseResponse(response)
			request.SetRequestURI("http://" + client.Addr + path)
			request.UseHostHeader = true
			request.Header.SetHost(host)
			<-release
			began := time.Now()
			errs[i] = client.Do(request, response)
			took[i] = float64(time.Since(began))
			if status := response.StatusCode(); errs[i] == nil && status != fasthttp.StatusOK {
				errs[i] = fmt.Errorf("%s: status %d", client.Addr, status)
			}
		})
	}
	close(release)
	group.Wait()
	for i, client := range clients {
		client.CloseIdleConnections()
		must(errs[i])
	}
	return took
}
