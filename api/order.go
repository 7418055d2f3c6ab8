package api

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// askOrder begins a question that has an order in it: its signature, a space and the
	// order as JSON follow.
	askOrder = "order "
	unsigned = "-" // stands for the signature where there is no token

	orderReset = "reset " // followed by the instances that are to obey, as JSON
	orderBurst = "burst " // followed by the plan as JSON, which names the instances too

	// orderValid is how far apart the clocks of two replicas may be, and how long an
	// order may be on its way.
	orderValid = time.Minute
	// maxFrom is how much of a name that another replica sent is logged.
	maxFrom = 64

	noteRefused = "Some replicas refused the order; their logs say why. Most often their ADMIN_TOKEN is another."
)

// order is what a replica tells the fleet to do. Unlike any other question it changes the
// replicas, so that it is signed with the admin token where there is one: who may publish
// in Redis may not for that reason give orders.
//
// It names the instances that are to obey, each of which exists once: from when a replica
// starts until it ends. So whoever reads an order cannot give it again to another fleet of
// the same token, on whatever namespace, database or server, nor to a replica that has
// started again and forgotten what it obeyed.
type order struct {
	Order string    `json:"order"` // orderReset or orderBurst, and for whom
	From  string    `json:"from"`  // the replica that gives it
	ID    string    `json:"id"`    // another one for each order
	Sent  time.Time `json:"sent"`
}

// refusal is the answer of a replica that does not reset its statistics.
type refusal struct {
	Refused string `json:"refused"` // the replica
}

// newOrder returns the question that has an order in it.
func (s *Server) newOrder(text string) (string, error) {
	raw, err := json.Marshal(order{Order: text, From: s.config.Replica, ID: rand.Text(), Sent: time.Now()})
	if err != nil {
		return "", fmt.Errorf("fleetcall: encoding an order: %w", err)
	}
	return askOrder + s.orders.sign(raw) + " " + string(raw), nil
}

// obey carries out an order, or answers that this replica refuses it.
func (s *Server) obey(ctx context.Context, question string) ([]byte, error) {
	signature, text, _ := strings.Cut(question, " ")
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return nil, fmt.Errorf("fleetcall: reading an order: %w", err)
	}
	refused := func() bool {
		err := s.orders.check(o, []byte(text), signature, time.Now())
		if err != nil {
			s.logRefusal(o, err)
		}
		return err != nil
	}
	if plan, ok := strings.CutPrefix(o.Order, orderBurst); ok {
		return s.runPlan(ctx, plan, refused)
	}
	names, ok := strings.CutPrefix(o.Order, orderReset)
	if !ok {
		return nil, fmt.Errorf("fleetcall: unknown order %q", o.Order)
	}
	var to []string
	if err := json.Unmarshal([]byte(names), &to); err != nil {
		return nil, fmt.Errorf("fleetcall: reading whom an order is for: %w", err)
	}
	if !slices.Contains(to, s.instance) {
		return nil, nil // the asker does not expect an answer
	}
	if refused() {
		return json.Marshal(refusal{s.config.Replica})
	}
	s.ResetStats()
	return json.Marshal(s.config.Replica)
}

// logRefusal logs at most one refusal a second, because whoever may publish in Redis can
// cause them.
func (s *Server) logRefusal(o order, reason error) {
	s.refusals.Do(func() {
		what, _, _ := strings.Cut(o.Order, " ")
		s.log.Warn("refused an order of another replica", "order", what, "from", o.From[:min(len(o.From), maxFrom)], "error", reason)
	})
}

var (
	errUnsigned   = errors.New("it is not signed, and this replica has an ADMIN_TOKEN")
	errSigned     = errors.New("it is signed, and this replica has no ADMIN_TOKEN")
	errOtherToken = errors.New("it is signed with another ADMIN_TOKEN than this replica's")
	errRepeated   = errors.New("it came before")
)

// orders signs orders and checks their signatures. Its methods may be called
// concurrently.
type orders struct {
	token string // empty: orders are not signed

	// The ids of the orders that were obeyed, so that none is obeyed twice. Every
	// keptFor the newer ones become the older ones.
	mu           sync.Mutex
	newer, older map[string]struct{}
	since        time.Time // when newer was begun
}

// keptFor is how long an order is remembered at least. One whose sender's clock is ahead
// may be sent again for twice orderValid.
const keptFor = 2 * orderValid

func (o *orders) sign(text []byte) string {
	if o.token == "" {
		return unsigned
	}
	mac := hmac.New(sha256.New, []byte(o.token))
	mac.Write([]byte(askOrder))
	mac.Write(text)
	return hex.EncodeToString(mac.Sum(nil))
}

// check returns why an order must not be obeyed. text is what was signed.
func (o *orders) check(got order, text []byte, signature string, now time.Time) error {
	switch want := o.sign(text); {
	case hmac.Equal([]byte(signature), []byte(want)):
	case signature == unsigned:
		return errUnsigned
	case want == unsigned:
		return errSigned
	default:
		return errOtherToken
	}
	if age := now.Sub(got.Sent); age.Abs() > orderValid {
		return fmt.Errorf("by this replica's clock it was sent %v ago: the clocks differ, or somebody sends it again", age.Round(time.Second))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.newer == nil || now.Sub(o.since) >= keptFor {
		o.newer, o.older, o.since = map[string]struct{}{}, o.newer, now
	}
	_, isNew := o.newer[got.ID]
	_, isOld := o.older[got.ID]
	if isNew || isOld {
		return errRepeated
	}
	o.newer[got.ID] = struct{}{}
	return nil
}
