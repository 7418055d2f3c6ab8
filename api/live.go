package api

import (
	"bytes"
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
	// snapshotEvery is the interval between two snapshots.
	snapshotEvery = time.Second
	// maxWatchers is the largest number of clients that may watch one replica.
	maxWatchers = 64
	// heartbeatEvery is the longest time without a message. A proxy between the replica
	// and the browser might close a connection that is silent for longer.
	heartbeatEvery = 5 * time.Second
	// watcherWriteTimeout bounds one write to a watcher.
	watcherWriteTimeout = 5 * time.Second
	// lastWriteTimeout bounds the write that is under way when the watcher has to go.
	lastWriteTimeout = 200 * time.Millisecond

	// hotWindow is the period in which requests count for the hottest keys.
	hotWindow = 10 * time.Second
	// Each replica reports its hotPerReplica hottest keys, and the fleet shows the
	// hotShown hottest of their sum. A key is missed only if it is just below the first
	// hotPerReplica on every replica.
	hotPerReplica, hotShown = 32, 10

	askLive = "live"
)

// ReplicaSnapshot is the state of one replica at one moment.
type ReplicaSnapshot struct {
	Instance string `json:"instance"` // changes with each start of the replica
	Stats    Stats  `json:"stats"`
	// Latency counts requests since the start or the last reset, by role. The key
	// "none" is for requests that ended before they had a role, and "normal" for those
	// of the normal endpoint, or those that a proxy sent alone.
	Latency map[string][]LatencyBucket `json:"latency"`
	HotKeys []HotKey                   `json:"hot_keys"`
	Leases  *Leases                    `json:"leases,omitempty"` // absent without a distributed tier
}

// HotKey is a key and the number of its requests within the last ten seconds. The
// number is a lower bound, and the part of the oldest second in it is an estimate.
type HotKey struct {
	Key      string  `json:"key"`
	Requests float64 `json:"requests"`
}

// Leases are the leases that a replica holds.
type Leases struct {
	Count  int     `json:"count"`
	Oldest []Lease `json:"oldest"` // at most 20, the oldest first
}

// Lease is a key whose query this replica runs on behalf of the fleet.
type Lease struct {
	Key   string  `json:"key"`
	AgeMS float64 `json:"age_ms"`
}

// Snapshot is the state of the fleet at one moment. It is the data of each event of
// /events.
type Snapshot struct {
	At       float64           `json:"at"`       // Unix seconds
	Fleet    Stats             `json:"fleet"`    // the sum, made by the replica that it names; its own list of replicas is empty
	HotKeys  []HotKey          `json:"hot_keys"` // the fleet's hottest
	Replicas []ReplicaSnapshot `json:"replicas"` // the replicas that answered, sorted by name
}

func (s *Server) replicaSnapshot() ReplicaSnapshot {
	live := ReplicaSnapshot{
		Instance: s.instance,
		Stats:    s.Stats(),
		HotKeys:  []HotKey{},
	}
	if u := s.config.Upstream; u != nil {
		live.Latency = u.latency.byRole()
		for _, c := range u.hot.Top(hotPerReplica, time.Now()) {
			live.HotKeys = append(live.HotKeys, HotKey{c.Key, c.Requests})
		}
	} else {
		live.Latency = s.latency.byRole()
		for _, c := range s.hot.Top(hotPerReplica, time.Now()) {
			live.HotKeys = append(live.HotKeys, HotKey{keyOf(c.Key), c.Requests})
		}
	}
	if s.config.Leases != nil {
		leases := s.config.Leases()
		live.Leases = &leases
	}
	return live
}

// snapshot asks every replica for its state and sums them up, as JSON.
func (s *Server) snapshot(ctx context.Context) ([]byte, error) {
	answers, missing, note, err := s.ask(ctx, askLive, allReplicas)
	if err != nil {
		return nil, err
	}
	return json.Marshal(s.sumUp(answers, missing, note))
}

// sumUp returns the snapshot of the replicas that answered.
func (s *Server) sumUp(answers [][]byte, missing int, note string) Snapshot {
	snap := Snapshot{
		At:       float64(time.Now().UnixMilli()) / 1000,
		Fleet:    Stats{Scope: scopeFleet, Replica: s.config.Replica, Mode: s.config.Mode, Note: note},
		Replicas: []ReplicaSnapshot{},
		HotKeys:  []HotKey{},
	}
	requests := map[string]float64{}
	for _, answer := range answers {
		var live ReplicaSnapshot
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
	snap.Fleet.Missing = &missing
	snap.Fleet.setHitRates()
	snap.Fleet.setRedisServers()
	snap.Fleet.Replicas = nil // Snapshot.Replicas lists them with more detail
	slices.SortFunc(snap.Replicas, func(a, b ReplicaSnapshot) int {
		return cmp.Or(cmp.Compare(a.Stats.Replica, b.Stats.Replica), cmp.Compare(a.Instance, b.Instance))
	})
	for key, n := range requests {
		snap.HotKeys = append(snap.HotKeys, HotKey{key, n})
	}
	slices.SortFunc(snap.HotKeys, func(a, b HotKey) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Key, b.Key))
	})
	snap.HotKeys = snap.HotKeys[:min(hotShown, len(snap.HotKeys))]
	return snap
}

// event returns a snapshot as a server-sent event. If there is none, it returns a comment,
// which keeps the connection alive.
func (s *Server) event(ctx context.Context) []byte {
	data, err := s.nextSnapshot(ctx)
	if err == nil {
		// It may be another replica's: it must not end the event, or begin another one.
		var head struct{ At float64 }
		if err = json.Unmarshal(data, &head); err == nil && !bytes.ContainsAny(data, "\r\n") {
			text := "id: " + strconv.FormatInt(int64(head.At*1000), 10) + "\nevent: snapshot\ndata: "
			return append(append([]byte(text), data...), "\n\n"...)
		}
	}
	s.log.Debug("no snapshot of the fleet", "error", err)
	return []byte(heartbeat)
}

// A line that starts with a colon is a comment, which clients ignore.
const heartbeat = ": still here\n\n"

// events sends a snapshot of the fleet each second, until the client leaves, is too
// slow, or the replica drains.
func (s *Server) events(c echo.Context) error {
	h := c.Response().Header()
	watcher, err := s.snapshots.Watch()
	switch {
	case errors.Is(err, broadcast.ErrFull):
		return problemWatchers
	case err != nil:
		return problemStopping
	}
	defer watcher.Close()
	h.Set(echo.HeaderContentType, "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // tells nginx not to buffer
	if c.Request().Method == http.MethodHead {
		return c.NoContent(http.StatusOK)
	}
	out := &eventWriter{response: c.Response(), control: http.NewResponseController(c.Response())}
	defer context.AfterFunc(watcher.Context(), out.end)()
	if s.config.WriteTimeout == 0 {
		// If there is a timeout, the server itself sets a new deadline for the
		// connection's next request. Otherwise the deadline has to be removed here.
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

// eventWriter writes to a client that may have stopped reading.
type eventWriter struct {
	response *echo.Response
	control  *http.ResponseController

	mu    sync.Mutex
	ended bool
}

// send returns false when nothing more can be sent. An error from SetWriteDeadline is
// ignored: it means that the connection supports no deadlines.
func (w *eventWriter) send(message []byte) bool {
	w.mu.Lock()
	if w.ended {
		w.mu.Unlock()
		return false
	}
	_ = w.control.SetWriteDeadline(time.Now().Add(watcherWriteTimeout))
	w.mu.Unlock()
	if _, err := w.response.Write(message); err != nil {
		return false
	}
	return w.control.Flush() == nil
}

// end gives a write that is under way a short deadline. Without it, a client that does
// not read would delay the shutdown of the server.
func (w *eventWriter) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.ended = true
	_ = w.control.SetWriteDeadline(time.Now().Add(lastWriteTimeout))
}

// close makes later calls of end do nothing. Once the handler has returned, the
// connection may carry the response to another request, whose deadline end must not
// change.
func (w *eventWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
}
