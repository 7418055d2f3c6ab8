package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"
)

// ResetResponse is the body that POST /stats/reset returns.
type ResetResponse struct {
	Message  string   `json:"message"`
	Scope    string   `json:"scope"`
	Replicas []string `json:"replicas"`          // those that were reset
	Missing  *int     `json:"missing,omitempty"` // live replicas that did not answer; over a fleet
	Refused  []string `json:"refused,omitempty"` // those that refused the order; over a fleet
	Note     string   `json:"note,omitempty"`
}

func (s *Server) reset(c echo.Context) error {
	scope, err := parseScope(c)
	if err != nil {
		return err
	}
	if scope == scopeReplica {
		s.ResetStats()
		return c.JSON(http.StatusOK, ResetResponse{
			Message: "Statistics of this replica are reset.", Scope: scope, Replicas: []string{s.config.Replica},
		})
	}
	answers, missing, note, err := s.resetAll(c.Request().Context())
	if err != nil {
		return err
	}
	answer := ResetResponse{Scope: scope, Replicas: []string{}, Note: note}
	for _, a := range answers {
		var replica string
		var other refusal
		switch {
		case json.Unmarshal(a, &replica) == nil:
			answer.Replicas = append(answer.Replicas, replica)
		case json.Unmarshal(a, &other) == nil && other.Refused != "":
			answer.Refused = append(answer.Refused, other.Refused)
			answer.Note = cmp.Or(note, noteRefused)
		default:
			missing++
		}
	}
	answer.Missing = &missing
	answer.Message = fmt.Sprintf("Statistics of %d replicas are reset.", len(answer.Replicas))
	if len(answer.Replicas) == 1 {
		answer.Message = "Statistics of 1 replica are reset."
	}
	return c.JSON(http.StatusOK, answer)
}

// resetAll asks who is there, as for a burst, and orders those to reset their statistics.
func (s *Server) resetAll(ctx context.Context) (answers [][]byte, missing int, note string, err error) {
	members, absent, note, err := s.callRoll(ctx)
	if err != nil {
		return nil, 0, "", err
	}
	var to []string
	for _, m := range members {
		to = append(to, m.Instance)
	}
	raw, err := json.Marshal(to)
	if err != nil {
		return nil, 0, "", fmt.Errorf("fleetcall: encoding an order: %w", err)
	}
	question, err := s.newOrder(orderReset + string(raw))
	if err != nil {
		return nil, 0, "", err
	}
	answers, missing, orderNote, err := s.ask(ctx, question, len(members))
	return answers, absent + missing, cmp.Or(note, orderNote), err
}
