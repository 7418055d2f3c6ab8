package chaos

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

// heldUp is the row of times when the whole machine stood still: it was
// suspended, or so busy that nothing ran.
const heldUp = "machine held up"

const (
	beat = 50 * time.Millisecond
	// stillness is from how long on a missing beat counts.
	stillness = time.Second
)

// pulse notices when this process, and so most likely none, runs.
type pulse struct {
	stop chan struct{}
	done sync.WaitGroup

	gaps []gap // read after close
}

type gap struct{ from, to int64 }

func startPulse() *pulse {
	p := &pulse{stop: make(chan struct{})}
	p.done.Go(func() {
		ticker := time.NewTicker(beat)
		defer ticker.Stop()
		last := history.Now()
		for {
			select {
			case <-p.stop:
				return
			case <-ticker.C:
			}
			now := history.Now()
			if now-last > int64(stillness) {
				p.gaps = append(p.gaps, gap{last, now})
			}
			last = now
		}
	})
	return p
}

func (p *pulse) close() {
	close(p.stop)
	p.done.Wait()
}

// insert adds the times of stillness to a history as faults of their own: what
// the protocol promises is no promise of the machine. Each lasts on for a flight
// timeout: a call that was about to begin its flight begins it then.
func (p *pulse) insert(records []history.Record) []history.Record {
	for _, g := range p.gaps {
		begin := history.Record{
			At: g.from, Process: "driver", Kind: history.FaultBegin, Fault: heldUp,
			Effects: &history.Effects{Stops: true, Unreliable: true, LosesMessages: true},
		}
		end := begin
		end.At, end.Kind, end.Effects, end.Took = g.to+int64(flightTimeout), history.FaultEnd, nil, flightTimeout+time.Duration(g.to-g.from)
		records = append(records, begin, end)
	}
	slices.SortStableFunc(records, func(a, b history.Record) int { return cmp.Compare(a.At, b.At) })
	return records
}
