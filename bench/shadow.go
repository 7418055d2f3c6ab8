package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/shadow"
)

const (
	shadowKeys = 100_000
	shadowRate = 600 // calls a second, of all replicas
	// shadowFunction is long beside a round trip and the stalls of a busy machine.
	shadowFunction = 100 * time.Millisecond
	shadowReplicas = 3
)

// recorded is a load of Poisson arrivals, spread evenly over the replicas, of keys by
// Zipf's law with exponent 1.
type recorded []arrival

// arrival is a call of a load.
type arrival struct {
	at           time.Duration
	replica, key int
}

func record(length time.Duration) (r recorded) {
	random := rand.New(rand.NewPCG(1, 2))
	sums, sum := make([]float64, shadowKeys), 0.0
	for i := range sums {
		sum += 1 / float64(i+1)
		sums[i] = sum
	}
	for at := time.Duration(0); at < length; at += time.Duration(random.ExpFloat64() / shadowRate * float64(time.Second)) {
		key, _ := slices.BinarySearch(sums, random.Float64()*sum)
		r = append(r, arrival{at, random.IntN(shadowReplicas), key})
	}
	return r
}

// played is a call that was made: when it began, since the load did, and how long its
// caller waited.
type played struct{ at, wait time.Duration }

// play makes each call in its time, on the group that is chosen for it, and returns what
// became of them and how many functions ran. A call that fails is named on the standard
// error.
func (r recorded) play(choose func(call, replica int) coalesce.Group[[]byte]) (calls []played, executions int64) {
	calls = make([]played, len(r))
	var ran atomic.Int64
	var running sync.WaitGroup
	begun := time.Now()
	for i, c := range r {
		time.Sleep(c.at - time.Since(begun))
		running.Go(func() {
			arrived := time.Now()
			_, _, err := choose(i, c.replica).Do(context.Background(), fmt.Sprint("key ", c.key), func(context.Context) ([]byte, error) {
				ran.Add(1)
				time.Sleep(shadowFunction) // the work that may be shared
				return nil, nil
			})
			if err != nil {
				fmt.Fprintln(os.Stderr, "a call of the recorded load failed:", err)
			}
			calls[i] = played{arrived.Sub(begun), time.Since(arrived)}
		})
	}
	running.Wait()
	return calls, ran.Load()
}

// shared returns how many functions would have run if each call that overlaps another one of
// its key had shared its flight.
func (r recorded) shared(calls []played) (flights int) {
	order := make([]int, len(calls))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(calls[a].at, calls[b].at) })
	until := map[int]time.Duration{}
	for _, i := range order {
		if end, led := until[r[i].key]; !led || calls[i].at >= end {
			until[r[i].key] = calls[i].at + calls[i].wait
			flights++
		}
	}
	return flights
}

// waits returns how long callers waited, those of which one is true.
func waits(calls []played, of func(call int) bool) (all []time.Duration) {
	for i, c := range calls {
		if of(i) {
			all = append(all, c.wait)
		}
	}
	return all
}

// shadows are replicas in shadow, which have heard each other.
type shadows struct {
	fleets []*shadow.Fleet
	groups []coalesce.Group[[]byte]
	close  func()
}

func startShadows(addr string, options ...shadow.Option) *shadows {
	s := &shadows{}
	var closers []func()
	for range shadowReplicas {
		client := newClient(addr)
		fleet := value(shadow.Open(client, options...))
		s.fleets = append(s.fleets, fleet)
		s.groups = append(s.groups, value(shadow.NewGroup[[]byte](fleet, "bench")))
		closers = append(closers, func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = fleet.Close(ctx)
			_ = client.Close()
		})
	}
	s.close = func() {
		for _, c := range closers {
			c()
		}
	}
	for _, f := range s.fleets {
		for f.Stats().Replicas != shadowReplicas {
			time.Sleep(settle)
		}
	}
	return s
}

func (s *shadows) reset() {
	for _, f := range s.fleets {
		f.ResetStats()
	}
}

// sum returns what the replicas say together, once they have judged all calls.
func (s *shadows) sum() (sum shadow.Stats) {
	for _, f := range s.fleets {
		st := f.Stats().Groups["bench"]
		for st.Pending > 0 {
			time.Sleep(settle)
			st = f.Stats().Groups["bench"]
		}
		sum.Requests += st.Requests
		sum.Local.Executions += st.Local.Executions
		sum.Distributed.Executions += st.Distributed.Executions
		sum.Distributed.ExecutionsError += st.Distributed.ExecutionsError
		sum.Covered += st.Covered / shadowReplicas
	}
	return sum
}

// measureShadow fills the report's section on what coalescing would save.
func measureShadow(b *bench) {
	addr, stop := startRedis()
	defer stop()
	s := b.section("shadow", "Shadow: what coalescing would save")
	length := 30 * time.Second
	if b.quick {
		length = 5 * time.Second
	}
	load := record(length)
	b.measurePrediction(s, addr, load)
	b.measureWatching(s, addr, load)
}

// measurePrediction plays the load to replicas in shadow and to replicas that coalesce.
func (b *bench) measurePrediction(s *section, addr string, load recorded) {
	t := table{
		Title:   fmt.Sprintf("%s calls of Zipf(1.0) over %s keys, %s a second, %d replicas, a function of %v: executions that are saved", thousands(len(load)), thousands(shadowKeys), thousands(shadowRate), shadowReplicas, shadowFunction),
		Columns: []string{"", "local", "distributed", "error", "counted from", "calls that did overlap"},
	}
	const sampled, full = "shadow, the hottest and 1 of 64", "shadow, all keys (these are few calls)"
	predictions, overlapped := map[string]float64{}, map[string]float64{}
	for _, kind := range []struct {
		name    string
		options []shadow.Option
	}{
		{sampled, []shadow.Option{shadow.WithFullBelow(0)}},
		{full, nil},
	} {
		replicas := startShadows(addr, kind.options...)
		// The hottest keys are known after a few seconds.
		load.until(5 * time.Second).play(func(_, replica int) coalesce.Group[[]byte] { return replicas.groups[replica] })
		_ = replicas.sum()
		replicas.reset()
		m := startMonitor(addr)
		calls, _ := load.play(func(_, replica int) coalesce.Group[[]byte] { return replicas.groups[replica] })
		sent := m.stop()
		sum := replicas.sum()
		replicas.close()
		saved := float64(sum.Requests) - sum.Distributed.Executions
		predictions[kind.name], overlapped[kind.name] = saved, float64(len(load)-load.shared(calls))
		t.add(kind.name, thousands(int(float64(sum.Requests)-sum.Local.Executions)), thousands(int(saved)),
			fmt.Sprintf("± %s", thousands(int(sum.Distributed.ExecutionsError))), fmt.Sprintf("%.1f %%", 100*sum.Covered), thousands(int(overlapped[kind.name])))
		bytes := 0
		for _, command := range sent {
			for _, word := range command {
				bytes += len(word)
			}
		}
		t.Note += fmt.Sprintf("%s: %.3f Redis commands and %.1f bytes to Redis for a call. ", kind.name, float64(len(sent))/float64(len(load)), float64(bytes)/float64(len(load)))
	}
	var groups []coalesce.Group[[]byte]
	for range shadowReplicas {
		// On a machine that cannot keep up, a goroutine may wait for its turn for longer than the
		// defaults: calls would exceed the flight timeout, and leaders count as dead.
		group, closeGroup := newGroup(addr, distributed.WithRedisTimeout(2*time.Second), distributed.WithLeaseTTL(time.Minute), distributed.WithFlightTimeout(10*time.Minute))
		defer closeGroup()
		groups = append(groups, group)
	}
	calls, ran := load.play(func(_, replica int) coalesce.Group[[]byte] { return groups[replica] })
	truth := float64(len(load)) - float64(ran)
	t.add("distributed", "–", thousands(int(truth)), "–", "–", "–")
	waited := quantile(waits(calls, func(int) bool { return true }), 0.5)
	t.Note += fmt.Sprintf("In distributed, half of the callers waited for %s.", milliseconds(float64(waited)))
	if waited > shadowFunction*5/4 {
		t.Note += " This machine is too busy to play the load: flights last longer than their functions, so that more calls share them than shadow can predict."
	}
	s.Tables = append(s.Tables, t)
	s.within("prediction's error, the hottest keys and 1 of 64, beside the calls that did overlap", math.Abs(predictions[sampled]/overlapped[sampled]-1), 0.05, percentage)
	s.within("prediction's error, the hottest keys and 1 of 64", math.Abs(predictions[sampled]/truth-1), 0.05, percentage)
	s.within("prediction's error, all keys", math.Abs(predictions[full]/truth-1), 0.05, percentage)
}

// until returns the calls of the first seconds.
func (r recorded) until(length time.Duration) recorded {
	n := slices.IndexFunc(r, func(c arrival) bool { return c.at > length })
	if n < 0 {
		return r
	}
	return r[:n]
}

// measureWatching sends each call of a load, in turn, through a group in shadow and through
// coalesce.Off, so that whatever disturbs the machine disturbs both alike.
func (b *bench) measureWatching(s *section, addr string, load recorded) {
	replicas := startShadows(addr)
	defer replicas.close()
	const ours, peer = "shadow", "off"
	var added, p50 []float64
	t := table{Title: fmt.Sprintf("A caller's wait, a function of %v", shadowFunction), Columns: []string{"", "p50", "p99"}}
	by := map[string][]time.Duration{}
	for round := range b.rounds(3) {
		ofOurs := func(call int) bool { return (call+round)%2 == 0 }
		calls, _ := load.play(func(call, replica int) coalesce.Group[[]byte] {
			if ofOurs(call) {
				return replicas.groups[replica]
			}
			return coalesce.Off[[]byte]{}
		})
		of := map[string][]time.Duration{ours: waits(calls, ofOurs), peer: waits(calls, func(call int) bool { return !ofOurs(call) })}
		for name, all := range of {
			by[name] = append(by[name], all...)
		}
		added = append(added, float64(quantile(of[ours], 0.99))/float64(quantile(of[peer], 0.99)))
		p50 = append(p50, float64(quantile(of[ours], 0.5))/float64(quantile(of[peer], 0.5)))
	}
	for _, name := range []string{ours, peer} {
		t.add(name, milliseconds(float64(quantile(by[name], 0.5))), milliseconds(float64(quantile(by[name], 0.99))))
	}
	t.Note = fmt.Sprintf("Each second call goes through the one, the others through the other. The p50 of shadow is %.3f times that of off.", median(p50))
	s.Tables = append(s.Tables, t)
	s.within("added p99 of a caller", max(median(added)-1, 0), 0.02, percentage)

	// A function that does nothing shows what a call itself takes.
	group, calls := replicas.groups[0], 20_000
	lone := func(group coalesce.Group[[]byte]) func() float64 {
		return func() float64 {
			return perOperation(calls, func() {
				for range calls {
					_, _, err := group.Do(context.Background(), "lone", nothing)
					must(err)
				}
			})
		}
	}
	took := interleave(b.rounds(9), []contender{{ours, lone(group)}, {peer, lone(coalesce.Off[[]byte]{})}})
	s.Tables = append(s.Tables, table{
		Title: "A call of a function that does nothing", Columns: []string{"", "mean"},
		Rows: [][]string{{ours, ns(took[ours])}, {peer, ns(took[peer])}},
	})
}

func percentage(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }
