package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/fleetcall/fleetcall/internal/broadcast"
)

const (
	// snapshotEvery is the time between two snapshots.
	snapshotEvery = time.Second
	// maxWatchers is how many may watch one replica.
	maxWatchers = 64
	// heartbeatEvery is how long a stream is silent at most: whatever is
	// between the replica and the browser must not take it for dead.
	heartbeatEvery = 5 * time.Second
	// watcherPatience is how long a write to a watcher may take.
	watcherPatience = 5 * time.Second
	// watcherFarewell is how long the last write may take once the watcher's
	// time is over.
	watcherFarewell = 200 * time.Millisecond

	// hotWindow is what the hottest keys are counted over.
	hotWindow = 10 * time.Second
	// hotPerReplica are asked of each replica, so that hotShown of the fleet
	// are right unless a key is just below them on every replica.
	hotPerReplica, hotShown = 32, 10

	askLive = "live"
)

// Live is one replica at one moment.
type Live struct {
	Instance string `json:"instance"` // another one for each start of the replica
	Stats    Stats  `json:"stats"`
	// Latency is since the start, or the last reset, by the request's role;
	// "none" are those that ended before they had one, and "normal" those of
	// the normal endpoint.
	Latency map[string][]LatencyBucket `json:"latency"`
	HotKeys []HotKey                   `json:"hot_keys"`
	Leases  *Leases                    `json:"leases,omitempty"` // absent without a distributed tier
}

// HotKey is a key and how many requests asked for it within the last ten
// seconds, at least; the share of the oldest second is an estimate.
type HotKey struct {
	Key      string  `json:"key"`
	Requests float64 `json:"requests"`
}

// Leases are those that a replica holds.
type Leases struct {
	Count  int     `json:"count"`
	Oldest []Lease `json:"oldest"` // 20 at most, the oldest first
}

// Lease is a key whose query this replica runs for the fleet.
type Lease struct {
	Key   string  `json:"key"`
	AgeMS float64 `json:"age_ms"`
}

// Snapshot is the fleet at one moment: the data of an event of /events.
type Snapshot struct {
	At       float64  `json:"at"`       // Unix seconds
	Fleet    Stats    `json:"fleet"`    // the sum, without the list of replicas
	HotKeys  []HotKey `json:"hot_keys"` // the fleet's hottest
	Replicas []Live   `json:"replicas"` // those that answered, by their names
}

func (s *Server) liveNow() Live {
	live := Live{
		Instance: s.instance,
		Stats:    s.Stats(),
		Latency:  s.latency.byRole(),
		HotKeys:  []HotKey{},
	}
	for _, c := range s.hot.Top(hotPerReplica, time.Now()) {
		live.HotKeys = append(live.HotKeys, HotKey{keyOf(c.Key), c.Requests})
	}
	if s.config.Leases != nil {
		leases := s.config.Leases()
		live.Leases = &leases
	}
	return live
}

// snapshot asks the fleet.
func (s *Server) snapshot(ctx context.Context) (Snapshot, error) {
	answers, missing, note, err := s.ask(ctx, askLive, everyone)
	if err != nil {
		return Snapshot{}, err
	}
	snap := Snapshot{
		At:       float64(time.Now().UnixMilli()) / 1000,
		Fleet:    Stats{Scope: scopeFleet, Replica: s.config.Replica, Mode: s.config.Mode, Note: note},
		Replicas: []Live{},
		HotKeys:  []HotKey{},
	}
	requests := map[string]float64{}
	for _, answer := range answers {
		var live Live
		if json.Unmarshal(answer, &live) != nil {
			missing++
			continue
		}
		snap.Fleet.add(live.Stats)
		snap.Replicas = append(snap.Replicas, live)
		for _, k := range live.HotKeys {
			requests[k.Key] += k.Requests
		}
	}
	snap.Fleet.Replicas = nil // they are in Replicas, with more
	snap.Fleet.Missing = &missing
	snap.Fleet.rates()
	slices.SortFunc(snap.Replicas, func(a, b Live) int {
		return cmp.Or(cmp.Compare(a.Stats.Replica, b.Stats.Replica), cmp.Compare(a.Instance, b.Instance))
	})
	for key, n := range requests {
		snap.HotKeys = append(snap.HotKeys, HotKey{key, n})
	}
	slices.SortFunc(snap.HotKeys, func(a, b HotKey) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Key, b.Key))
	})
	snap.HotKeys = snap.HotKeys[:min(hotShown, len(snap.HotKeys))]
	return snap, nil
}

// event is a snapshot as server-sent events have it; where there is none, a
// comment.
func (s *Server) event(ctx context.Context) []byte {
	snap, err := s.snapshot(ctx)
	if err == nil {
		var data []byte
		if data, err = json.Marshal(snap); err == nil {
			text := "id: " + strconv.FormatInt(int64(snap.At*1000), 10) + "\nevent: snapshot\ndata: "
			return append(append([]byte(text), data...), "\n\n"...)
		}
	}
	s.log.Debug("no snapshot of the fleet", "error", err)
	return []byte(heartbeat)
}

// A comment does nothing but keep the connection.
const heartbeat = ": still here\n\n"

// events sends a snapshot of the fleet each second until the client leaves, does
// not keep up, or the replica is to stop.
func (s *Server) events(c echo.Context) error {
	h := c.Response().Header()
	watcher, err := s.watched.Watch()
	switch {
	case errors.Is(err, broadcast.ErrFull):
		return problemWatchers
	case err != nil:
		return problemStopping
	}
	defer watcher.Close()
	h.Set(echo.HeaderContentType, "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx hands on what it gets at once
	if c.Request().Method == http.MethodHead {
		return c.NoContent(http.StatusOK)
	}
	out := &eventWriter{response: c.Response(), control: http.NewResponseController(c.Response())}
	defer context.AfterFunc(watcher.Context(), out.end)()
	if s.config.WriteTimeout == 0 {
		// With a timeout, the server sets the deadline of the connection's next
		// request itself.
		defer func() { _ = out.control.SetWriteDeadline(time.Time{}) }()
	}
	defer out.close()
	if !out.send([]byte("retry: 1000\n\n")) {
		return nil
	}
	silence := time.NewTicker(heartbeatEvery)
	defer silence.Stop()
	for {
		message := []byte(heartbeat)
		select {
		case <-watcher.Context().Done():
			return nil
		case <-c.Request().Context().Done():
			return nil
		case message = <-watcher.Messages():
			silence.Reset(heartbeatEvery)
		case <-silence.C:
		}
		if !out.send(message) {
			return nil
		}
	}
}

// eventWriter writes to a client that may not read.
type eventWriter struct {
	response *echo.Response
	control  *http.ResponseController

	mu    sync.Mutex
	ended bool
}

// send returns false when there is nobody to send to any more. A connection that
// knows no deadlines has none.
func (w *eventWriter) send(message []byte) bool {
	w.mu.Lock()
	if w.ended {
		w.mu.Unlock()
		return false
	}
	_ = w.control.SetWriteDeadline(time.Now().Add(watcherPatience))
	w.mu.Unlock()
	if _, err := w.response.Write(message); err != nil {
		return false
	}
	return w.control.Flush() == nil
}

// end cuts off a write that hangs: a client that does not read must not hold up
// the end of the server.
func (w *eventWriter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.ended = true
	_ = w.control.SetWriteDeadline(time.Now().Add(watcherFarewell))
}

// close keeps end from the response of a handler that has returned: it is another
// request's by then.
func (w *eventWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
}
