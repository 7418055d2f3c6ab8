package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/product"
)

const (
	// maxBurst is how many requests a burst may have.
	maxBurst = 1000
	// shareLimit is how long a replica's share may take. What has not ended by
	// then is cut off, so that the answer arrives within burstLimit.
	shareLimit = 25 * time.Second
	burstLimit = 30 * time.Second
	burstSlack = 10 * time.Second // for the answer to be written

	askRoll  = "roll-call"
	askBurst = "burst " // and the plan, as JSON
)

// BurstOrder is the body of POST /burst.
type BurstOrder struct {
	Product  int32 `json:"product"`
	Requests int   `json:"requests"`
}

// BurstAnswer is what POST /burst answers: what each tier made of the burst.
type BurstAnswer struct {
	ID         string  `json:"id"` // the requests' X-Request-Id begin with it
	Product    int32   `json:"product"`
	Requests   int     `json:"requests"` // that were made
	Mode       string  `json:"mode"`
	TookMS     float64 `json:"took_ms"`
	Flights    int     `json:"flights"`   // that the local tiers made of them; without coalescing, the requests
	Queries    int     `json:"queries"`   // that these requests sent to the database
	Prevented  int     `json:"prevented"` // requests that were answered without one of their own
	Failed     int     `json:"failed"`    // answered with an error
	Unfinished int     `json:"unfinished"`

	Roles    map[string]int `json:"roles"`
	Replicas []BurstShare   `json:"replicas"`
	Note     string         `json:"note,omitempty"` // why it is not the whole fleet's
}

// BurstShare is the part of a burst that one replica ran.
type BurstShare struct {
	Replica  string      `json:"replica"`
	Instance string      `json:"instance"`
	State    string      `json:"state"`    // ran, busy (with another burst) or silent (it did not answer)
	Requests int         `json:"requests"` // its share
	Flights  int         `json:"flights"`
	Queries  int         `json:"queries"`
	Calls    []BurstCall `json:"calls"`
}

// BurstCall is one request of a burst.
type BurstCall struct {
	Role    string  `json:"role"`
	Status  int     `json:"status"`   // 0: it did not end in time
	StartMS float64 `json:"start_ms"` // after the beginning of its replica's share
	MS      float64 `json:"ms"`
}

// The states of a BurstShare.
const (
	shareRan    = "ran"
	shareBusy   = "busy"
	shareSilent = "silent"
)

// member is one replica in the answers to a roll call.
type member struct {
	Replica  string `json:"replica"`
	Instance string `json:"instance"`
}

// plan says how many requests each instance makes.
type plan struct {
	ID      string         `json:"id"`
	Product int32          `json:"product"`
	Shares  map[string]int `json:"shares"`
}

// burst makes requests for one product at the same moment on every replica. The
// fleet makes them, not the client: a browser has some six connections.
func (s *Server) burst(c echo.Context) error {
	order, err := readOrder(c.Request().Body)
	if err != nil {
		return err
	}
	if s.sharing.Load() || !s.bursting.CompareAndSwap(false, true) {
		return problemBurstBusy
	}
	defer s.bursting.Store(false)
	ctx := c.Request().Context()
	present, absent, note, err := s.ask(ctx, askRoll, everyone)
	if err != nil {
		return err
	}
	var members []member
	for _, answer := range present {
		var m member
		if json.Unmarshal(answer, &m) == nil {
			members = append(members, m)
		}
	}
	p := plan{ID: "burst-" + strings.ToLower(rand.Text()[:8]), Product: order.Product, Shares: split(order.Requests, members)}
	question, err := json.Marshal(p)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, burstLimit)
	defer cancel()
	if s.config.WriteTimeout != 0 && s.config.WriteTimeout < burstLimit+burstSlack {
		_ = http.NewResponseController(c.Response()).SetWriteDeadline(time.Now().Add(burstLimit + burstSlack))
	}
	begin := time.Now()
	// Who did not answer the roll call has no share: nobody waits for it again.
	answers, _, second, err := s.ask(limited, askBurst+string(question), len(members))
	if err != nil {
		return err
	}
	answer := BurstAnswer{ID: p.ID, Product: p.Product, Mode: s.config.Mode, TookMS: milliseconds(time.Since(begin)), Roles: map[string]int{}}
	if answer.Note = note; note == "" && absent == 0 {
		answer.Note = second
	}
	shares := map[string]BurstShare{}
	for _, a := range answers {
		var share BurstShare
		if json.Unmarshal(a, &share) == nil {
			shares[share.Instance] = share
		}
	}
	busy := false
	for _, m := range members {
		share, ok := shares[m.Instance]
		if !ok {
			share = BurstShare{Replica: m.Replica, Instance: m.Instance, State: shareSilent, Calls: []BurstCall{}}
		}
		share.Requests = p.Shares[m.Instance]
		answer.add(share)
		busy = busy || share.State == shareBusy
	}
	if busy && answer.Requests == 0 {
		// Another replica's burst came between the roll call and the plan.
		return problemBurstBusy
	}
	return c.JSON(http.StatusOK, answer)
}

func readOrder(body io.Reader) (BurstOrder, error) {
	var order BurstOrder
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	err := d.Decode(&order)
	if err == nil {
		_, err = d.Token() // nothing may come after it
	} else if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return order, echo.ErrStatusRequestEntityTooLarge
	}
	if !errors.Is(err, io.EOF) || order.Product < 1 || order.Requests < 1 || order.Requests > maxBurst {
		return order, problemBadBurst
	}
	return order, nil
}

// split divides the requests, as evenly as they can be, as a balancer would.
func split(requests int, members []member) map[string]int {
	shares := map[string]int{}
	for i, m := range members {
		shares[m.Instance] = (requests + len(members) - 1 - i) / len(members)
	}
	return shares
}

func (a *BurstAnswer) add(share BurstShare) {
	a.Replicas = append(a.Replicas, share)
	a.Flights += share.Flights
	a.Queries += share.Queries
	for _, call := range share.Calls {
		a.Requests++
		a.Roles[call.Role]++
		switch {
		case call.Status == 0:
			a.Unfinished++
		case call.Status != http.StatusOK && call.Status != http.StatusNotFound:
			a.Failed++
		case call.Role != coalesce.Leader.String() && call.Role != coalesce.Fallback.String():
			a.Prevented++
		}
	}
}

// answerBurst runs this replica's share of a burst. It answers nothing to a plan
// that has none for it.
func (s *Server) answerBurst(ctx context.Context, question string) ([]byte, error) {
	var p plan
	if err := json.Unmarshal([]byte(question), &p); err != nil {
		return nil, err
	}
	requests, planned := p.Shares[s.instance]
	if !planned {
		return nil, nil
	}
	share := BurstShare{Replica: s.config.Replica, Instance: s.instance, State: shareRan, Calls: []BurstCall{}}
	// The question may come from anybody who may publish in Redis.
	n := max(0, min(requests, maxBurst))
	switch {
	case n == 0:
	case !s.sharing.CompareAndSwap(false, true):
		share.State = shareBusy
	default:
		defer s.sharing.Store(false)
		s.runShare(ctx, p, n, &share)
	}
	return json.Marshal(share)
}

// runShare makes n requests at once, each of which takes the way of one from
// outside.
func (s *Server) runShare(ctx context.Context, p plan, n int, share *BurstShare) {
	ctx, cancel := context.WithTimeout(ctx, shareLimit)
	defer cancel()
	var queries atomic.Int64
	ctx = product.OnQuery(ctx, func() { queries.Add(1) })
	share.Calls = make([]BurstCall, n)
	begin := make(chan struct{})
	var began time.Time
	var all sync.WaitGroup
	for i := range share.Calls {
		all.Go(func() {
			<-begin
			start := time.Now()
			status, role := s.inside(ctx, p.Product, p.ID+"-"+strconv.Itoa(i+1))
			share.Calls[i] = BurstCall{Role: role, Status: status, StartMS: milliseconds(start.Sub(began)), MS: milliseconds(time.Since(start))}
		})
	}
	began = time.Now()
	close(begin)
	all.Wait()
	share.Queries = int(queries.Load())
	for _, call := range share.Calls {
		// One request of a local flight has the role that the flight has in the
		// fleet.
		if call.Role != coalesce.LocalFollower.String() && call.Role != coalesce.Role(0).String() {
			share.Flights++
		}
	}
}

// inside sends a request for a coalesced product to this very server. Without
// an answer, the status is 0.
func (s *Server) inside(ctx context.Context, id int32, requestID string) (status int, role string) {
	w := &discard{header: http.Header{}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/product/coalesced/"+strconv.Itoa(int(id)), http.NoBody)
	if err != nil {
		return 0, coalesce.Role(0).String()
	}
	r.RemoteAddr = "burst"
	r.Header.Set(echo.HeaderXRequestID, requestID)
	s.echo.ServeHTTP(w, r)
	if role = w.header.Get("X-Coalesce-Role"); role == "" {
		role = coalesce.Role(0).String()
	}
	return w.status, role
}

// discard is a ResponseWriter that keeps no body.
type discard struct {
	header http.Header
	status int // 0: nothing was written
}

func (d *discard) Header() http.Header { return d.header }

func (d *discard) WriteHeader(status int) {
	if d.status == 0 {
		d.status = status
	}
}

func (d *discard) Write(p []byte) (int, error) {
	d.WriteHeader(http.StatusOK)
	return len(p), nil
}

// milliseconds rounds to hundredths.
func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Millisecond)*100) / 100
}
