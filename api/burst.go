package api

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
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
	// maxBurst is the largest number of requests that a burst may have.
	maxBurst = 1000
	// shareTimeout bounds a replica's share of a burst. Requests that have not ended by
	// then are cut off, so that the replica answers before burstTimeout.
	shareTimeout     = 25 * time.Second
	burstTimeout     = 30 * time.Second
	burstWriteMargin = 10 * time.Second // to write the response

	askRollCall = "roll-call"
)

// BurstRequest is the body of POST /burst.
type BurstRequest struct {
	Product  int32 `json:"product"`
	Requests int   `json:"requests"`
}

// BurstResponse is the body that POST /burst returns: what each tier made of the burst.
type BurstResponse struct {
	ID         string  `json:"id"` // each request's X-Request-Id begins with it
	Product    int32   `json:"product"`
	Requests   int     `json:"requests"` // that were sent
	Mode       string  `json:"mode"`
	TookMS     float64 `json:"took_ms"`
	Flights    int     `json:"flights"`   // of the local tiers; with coalescing off, each request counts as one
	Queries    int     `json:"queries"`   // that these requests sent to the database
	Prevented  int     `json:"prevented"` // requests that were answered without a query of their own
	Failed     int     `json:"failed"`    // answered with an error
	Unfinished int     `json:"unfinished"`

	Roles    map[string]int `json:"roles"`
	Replicas []BurstShare   `json:"replicas"`
	Note     string         `json:"note,omitempty"` // why the numbers are not the whole fleet's
}

// BurstShare is the part of a burst that one replica ran.
type BurstShare struct {
	Replica  string      `json:"replica"`
	Instance string      `json:"instance"`
	State    string      `json:"state"`    // ran, busy (with another burst), refused (the order) or silent (it did not answer)
	Requests int         `json:"requests"` // that this replica was to send
	Flights  int         `json:"flights"`
	Queries  int         `json:"queries"`
	Calls    []BurstCall `json:"calls"`
}

// BurstCall is one request of a burst.
type BurstCall struct {
	Role    string  `json:"role"`
	Status  int     `json:"status"`   // 0: the request did not end in time
	StartMS float64 `json:"start_ms"` // since the start of the replica's share
	MS      float64 `json:"ms"`
}

// The states of a BurstShare.
const (
	shareRan     = "ran"
	shareBusy    = "busy"
	shareRefused = "refused"
	shareSilent  = "silent"
)

// member is what a replica answers to a roll call.
type member struct {
	Replica  string `json:"replica"`
	Instance string `json:"instance"`
	Proxy    bool   `json:"proxy,omitempty"` // it has no products
}

// plan says how many requests each instance sends.
type plan struct {
	ID      string         `json:"id"`
	Product int32          `json:"product"`
	Shares  map[string]int `json:"shares"`
}

// burst makes requests for one product at the same moment on every replica. The
// fleet itself makes them, because a browser opens only about six connections to a
// server and could not send them at once.
//
// The fleet is asked twice: the roll call says which replicas there are, and the
// plan then gives each of them its share of the requests.
func (s *Server) burst(c echo.Context) error {
	request, err := readBurstRequest(c.Request().Body)
	if err != nil {
		return err
	}
	if s.sharing.Load() || !s.bursting.CompareAndSwap(false, true) {
		return problemBurstBusy
	}
	defer s.bursting.Store(false)
	members, _, note, err := s.callRoll(c.Request().Context())
	if err != nil {
		return err
	}
	members = slices.DeleteFunc(members, func(m member) bool { return m.Proxy })
	if s.config.WriteTimeout != 0 && s.config.WriteTimeout < burstTimeout+burstWriteMargin {
		_ = http.NewResponseController(c.Response()).SetWriteDeadline(time.Now().Add(burstTimeout + burstWriteMargin))
	}
	p := plan{ID: "burst-" + strings.ToLower(rand.Text()[:8]), Product: request.Product, Shares: split(request.Requests, members)}
	begin := time.Now()
	shares, planNote, err := s.askForShares(c.Request().Context(), p, len(members))
	if err != nil {
		return err
	}
	response := BurstResponse{ID: p.ID, Product: p.Product, Mode: s.config.Mode, TookMS: milliseconds(time.Since(begin)),
		Roles: map[string]int{}, Note: cmp.Or(note, planNote)}
	busy := false
	for _, m := range members {
		share, ok := shares[m.Instance]
		if !ok {
			share = BurstShare{Replica: m.Replica, Instance: m.Instance, State: shareSilent, Calls: []BurstCall{}}
		}
		share.Requests = p.Shares[m.Instance]
		response.add(share)
		busy = busy || share.State == shareBusy
		if share.State == shareRefused && response.Note == "" {
			response.Note = noteRefused
		}
	}
	if busy && response.Requests == 0 {
		// Another replica's burst came between the roll call and the plan.
		return problemBurstBusy
	}
	return c.JSON(http.StatusOK, response)
}

// callRoll asks every replica whether it is there. The note is not empty when some did
// not answer.
func (s *Server) callRoll(ctx context.Context) (members []member, missing int, note string, err error) {
	answers, missing, note, err := s.ask(ctx, askRollCall, allReplicas)
	if err != nil {
		return nil, 0, "", err
	}
	for _, answer := range answers {
		var m member
		if json.Unmarshal(answer, &m) == nil {
			members = append(members, m)
		}
	}
	return members, missing, note, nil
}

// askForShares asks the members of the roll call to run the plan, and returns their
// shares by instance. A replica that missed the roll call has no share, so nobody waits
// for it.
func (s *Server) askForShares(ctx context.Context, p plan, members int) (shares map[string]BurstShare, note string, err error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, "", fmt.Errorf("fleetcall: encoding a burst's plan: %w", err)
	}
	question, err := s.newOrder(orderBurst + string(raw))
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, burstTimeout)
	defer cancel()
	answers, _, note, err := s.ask(ctx, question, members)
	if err != nil {
		return nil, "", err
	}
	shares = map[string]BurstShare{}
	for _, answer := range answers {
		var share BurstShare
		if json.Unmarshal(answer, &share) == nil {
			shares[share.Instance] = share
		}
	}
	return shares, note, nil
}

// readBurstRequest accepts one JSON object with nothing after it.
func readBurstRequest(body io.Reader) (BurstRequest, error) {
	var request BurstRequest
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	err := d.Decode(&request)
	if err == nil {
		_, err = d.Token() // fails with io.EOF unless more follows
	} else if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return request, echo.ErrStatusRequestEntityTooLarge
	}
	if !errors.Is(err, io.EOF) || request.Product < 1 || request.Requests < 1 || request.Requests > maxBurst {
		return request, problemBadBurst
	}
	return request, nil
}

// split divides the requests as evenly as a balancer would.
func split(requests int, members []member) map[string]int {
	shares := map[string]int{}
	for i, m := range members {
		shares[m.Instance] = (requests + len(members) - 1 - i) / len(members)
	}
	return shares
}

func (a *BurstResponse) add(share BurstShare) {
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

// runPlan runs this replica's share of a burst, unless the order is refused. If the plan
// has no share for this instance, runPlan returns no answer at all, because the asker does
// not expect one.
func (s *Server) runPlan(ctx context.Context, text string, refused func() bool) ([]byte, error) {
	var p plan
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return nil, err
	}
	requests, planned := p.Shares[s.instance]
	if !planned {
		return nil, nil
	}
	share := BurstShare{Replica: s.config.Replica, Instance: s.instance, State: shareRan, Calls: []BurstCall{}}
	// The number is bounded again here, because without a token any client that may
	// publish in Redis can send a plan.
	n := max(0, min(requests, maxBurst))
	switch {
	case s.config.Upstream != nil, refused(): // a proxy has no products
		share.State = shareRefused
	case n == 0:
	case !s.sharing.CompareAndSwap(false, true):
		share.State = shareBusy
	default:
		defer s.sharing.Store(false)
		s.runShare(ctx, p, n, &share)
	}
	return json.Marshal(share)
}

// runShare sends n requests at once. Each of them passes through all handlers, like a
// request that comes over the network.
func (s *Server) runShare(ctx context.Context, p plan, n int, share *BurstShare) {
	ctx, cancel := context.WithTimeout(ctx, shareTimeout)
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
			status, role := s.serveInProcess(ctx, p.Product, p.ID+"-"+strconv.Itoa(i+1))
			share.Calls[i] = BurstCall{Role: role, Status: status, StartMS: milliseconds(start.Sub(began)), MS: milliseconds(time.Since(start))}
		})
	}
	began = time.Now()
	close(begin)
	all.Wait()
	share.Queries = int(queries.Load())
	for _, call := range share.Calls {
		// Of the requests that share a local flight, one carries the role that the
		// flight has in the fleet. Counting those roles counts the flights.
		if call.Role != coalesce.LocalFollower.String() && call.Role != coalesce.Role(0).String() {
			share.Flights++
		}
	}
}

// serveInProcess sends a request for a coalesced product to this server without a
// connection. The status is 0 if the server did not answer, as when ctx has ended.
func (s *Server) serveInProcess(ctx context.Context, id int32, requestID string) (status int, role string) {
	w := &discardWriter{header: http.Header{}}
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

// discardWriter is a ResponseWriter that keeps the header and the status, and drops the
// body.
type discardWriter struct {
	header http.Header
	status int // 0: nothing was written yet
}

func (d *discardWriter) Header() http.Header { return d.header }

func (d *discardWriter) WriteHeader(status int) {
	if d.status == 0 {
		d.status = status
	}
}

func (d *discardWriter) Write(p []byte) (int, error) {
	d.WriteHeader(http.StatusOK)
	return len(p), nil
}

// milliseconds rounds to hundredths of a millisecond.
func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Millisecond)*100) / 100
}
