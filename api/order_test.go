package api_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/rig"
)

// ordered returns the question that an order without a signature is.
func ordered(t *testing.T, id, text string) string {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"order": text, "from": "another", "id": id, "sent": time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	return "order - " + string(raw)
}

// bare returns a server without a port, and its log.
func bare(t *testing.T, change func(*api.Config)) (*api.Server, *rig.Output) {
	t.Helper()
	log := &rig.Output{}
	config := api.Config{Group: coalesce.Off[product.Product]{}, Store: &store{}, Mode: "off", Replica: "r",
		Logger: slog.New(slog.NewTextHandler(log, nil))}
	change(&config)
	server, err := api.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return server, log
}

// tapped is a fleet whose last order is remembered, and does not come.
type tapped struct {
	servers []*api.Server
	order   string
}

func (f *tapped) Ask(ctx context.Context, question string, _ int) (answers [][]byte, missing int, err error) {
	if strings.HasPrefix(question, "order ") {
		f.order = question
		return nil, len(f.servers), nil
	}
	for _, s := range f.servers {
		answer, err := s.Answer(ctx, question)
		if err != nil {
			return nil, 0, err
		}
		answers = append(answers, answer)
	}
	return answers, 0, nil
}

// post sends a request to a server without a port, and returns the body of the answer.
func post(t *testing.T, s *api.Server, token, path, body string) string {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	s.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Errorf("%s: %d %s", path, w.Code, w.Body)
	}
	return w.Body.String()
}

// giveOrder has a replica with this token reset the statistics of a fleet of two, and
// returns the order that it sent.
func giveOrder(t *testing.T, token string, to *api.Server) string {
	t.Helper()
	fleet := &tapped{}
	giver, _ := bare(t, func(c *api.Config) { c.Replica, c.AdminToken, c.Fleet = "giver", token, fleet })
	fleet.servers = []*api.Server{giver, to}
	post(t, giver, token, "/stats/reset?scope=fleet", "")
	return fleet.order
}

// unsignedReset is the order of a replica without a token.
func unsignedReset(t *testing.T, to *api.Server) string {
	t.Helper()
	_, text, _ := strings.Cut(strings.TrimPrefix(giveOrder(t, "", to), "order "), " ")
	var o struct{ Order string }
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	return o.Order
}

func TestAnOrderOfAnotherTokenIsRefusedAndTheAnswerSaysByWhom(t *testing.T) {
	for name, tokens := range map[string]struct{ asker, other, log string }{
		"of one without a token":         {"", "secret", "it is not signed"},
		"of one with another token":      {"guessed", "secret", "it is signed with another ADMIN_TOKEN"},
		"to one without a token":         {"secret", "", "this replica has no ADMIN_TOKEN"},
		"of one with the same token":     {"secret", "secret", ""},
		"where nobody has a token":       {"", "", ""},
		"of one with a part of the same": {"secre", "secret", "it is signed with another ADMIN_TOKEN"},
	} {
		t.Run(name, func(t *testing.T) {
			fleet := &concurrentFleet{}
			asker, _ := bare(t, func(c *api.Config) { c.Replica, c.AdminToken, c.Fleet = "asker", tokens.asker, fleet })
			other, log := bare(t, func(c *api.Config) { c.Replica, c.AdminToken = "other", tokens.other })
			fleet.servers = []*api.Server{asker, other}
			obeys := tokens.log == ""
			state, took := map[bool]string{true: "ran", false: "refused"}[obeys], map[bool]uint64{true: 5}[obeys]

			burst := post(t, asker, tokens.asker, "/burst", `{"product":1,"requests":10}`)
			got := decode[api.BurstResponse](t, response{body: burst})
			if len(got.Replicas) != 2 || got.Replicas[0].State != "ran" || got.Replicas[1].State != state || got.Replicas[1].Requests != 5 ||
				got.Requests != 5+int(took) || (got.Note == "") != obeys {
				t.Errorf("%s", burst)
			}
			if n := other.Stats().TotalRequests; n != took {
				t.Errorf("%d requests were made on the other replica, want %d", n, took)
			}
			if !obeys { // so that a reset would be seen
				other.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/product/coalesced/1", nil))
			}

			reset := post(t, asker, tokens.asker, "/stats/reset?scope=fleet", "")
			answer := decode[api.ResetResponse](t, response{body: reset})
			if slices.Contains(answer.Replicas, "other") != obeys || slices.Contains(answer.Refused, "other") == obeys || *answer.Missing != 0 ||
				(answer.Note == "") != obeys || !slices.Contains(answer.Replicas, "asker") {
				t.Errorf("%s", reset)
			}
			if n := other.Stats().TotalRequests; (n == 0) != obeys {
				t.Errorf("the other replica counts %d requests after the reset", n)
			}
			if (log.String() == "") != obeys || !strings.Contains(log.String(), tokens.log) || !obeys && !strings.Contains(log.String(), "from=asker") {
				t.Errorf("log: %s", log)
			}
			if strings.Contains(log.String(), "secret") {
				t.Errorf("the token is in the log: %s", log)
			}
		})
	}
}

// refused reports whether an answer to a reset says that it was refused.
func refused(t *testing.T, s *api.Server, question string) bool {
	t.Helper()
	raw, err := s.Answer(t.Context(), question)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(raw), "refused")
}

func TestAnOrderIsObeyedOnceAndOnlyForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := bare(t, func(c *api.Config) { c.AdminToken = "secret" })
		order := giveOrder(t, "secret", s)
		if refused(t, s, order) {
			t.Errorf("the order is refused: %s", log)
		}
		for range 40 { // its sender's clock may be ahead, and it may be sent again all the time
			if !refused(t, s, order) {
				t.Errorf("the order is obeyed again after %s", log)
			}
			time.Sleep(5 * time.Second) // of the bubble's time, as all here
		}
		if !strings.Contains(log.String(), "it came before") {
			t.Errorf("log: %s", log)
		}
		late := giveOrder(t, "secret", s)
		time.Sleep(61 * time.Second) // longer than an order is valid
		if !refused(t, s, late) || !strings.Contains(log.String(), "it was sent 1m1s ago") {
			t.Errorf("an order of long ago is obeyed: %s", log)
		}
		for second := range 300 { // whenever the replica forgets the older ones
			order := giveOrder(t, "secret", s)
			if refused(t, s, order) {
				t.Errorf("second %d: the order is refused", second)
			}
			time.Sleep(time.Second) // so that each second of the minutes has its order
			if !refused(t, s, order) {
				t.Errorf("second %d: the order is obeyed again", second)
			}
		}
	})
}

func TestAnOrderThatWasChangedIsRefused(t *testing.T) {
	s, _ := bare(t, func(c *api.Config) { c.AdminToken = "secret" })
	order := giveOrder(t, "secret", s)
	signature, text, _ := strings.Cut(strings.TrimPrefix(order, "order "), " ")
	for name, changed := range map[string]string{
		"another sender":   strings.Replace(order, `"giver"`, `"other"`, 1),
		"a space":          order + " ",
		"no signature":     "order - " + text,
		"an empty one":     "order  " + text,
		"a part of it":     "order " + signature[:8] + " " + text,
		"in capitals":      "order " + strings.ToUpper(signature) + " " + text,
		"another order":    strings.Replace(ordered(t, "x", unsignedReset(t, s)), "order -", "order "+signature, 1),
		"without a sender": strings.Replace(order, `"from":"giver",`, "", 1),
	} {
		if !refused(t, s, changed) {
			t.Errorf("with %s it is obeyed: %s", name, changed)
		}
	}
	for _, garbage := range []string{"order ", "order - ", "order -", "order - {", "order - []", "order " + signature, ordered(t, "x", ""), ordered(t, "z", "reset"), ordered(t, "z", "reset x"), ordered(t, "y", "shutdown"), "reset", "burst {}"} {
		if raw, err := s.Answer(t.Context(), garbage); err == nil {
			t.Errorf("%q is answered with %s", garbage, raw)
		}
	}
	if refused(t, s, order) {
		t.Error("the order itself is refused after all that")
	}
}

func TestRefusalsAreLoggedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := bare(t, func(c *api.Config) { c.AdminToken = "secret" })
		hostile := "a\nlevel=ERROR " + strings.Repeat("x", 100)
		raw, err := json.Marshal(map[string]any{"order": unsignedReset(t, s), "from": hostile, "id": "1", "sent": time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		for range 300 { // in three seconds
			refused(t, s, "order - "+string(raw))
			time.Sleep(10 * time.Millisecond) // of the bubble's time
		}
		if n := strings.Count(log.String(), "\n"); n != 3 {
			t.Errorf("%d lines in three seconds:\n%s", n, log)
		}
		if strings.Contains(log.String(), strings.Repeat("x", 65)) {
			t.Errorf("the name is not shortened:\n%s", log)
		}
	})
}

func TestAReplicaThatIsNotOrderedAnswersNothingEvenToAStranger(t *testing.T) {
	s, _ := bare(t, func(c *api.Config) { c.AdminToken = "secret" })
	for _, order := range []string{`burst {"id":"x","product":1,"shares":{"another":3}}`, `reset ["another"]`, `reset []`} {
		if raw, err := s.Answer(t.Context(), ordered(t, "x", order)); raw != nil || err != nil {
			t.Errorf("%s: it answers %q, %v: the asker would count it", order, raw, err)
		}
	}
}

// TestAnOrderIsForThoseAloneWhoWereThere has somebody who reads the orders of one fleet give
// them again: to a replica that was told, when it has started again, and to another fleet's
// that has the same token and the same names.
func TestAnOrderIsForThoseAloneWhoWereThere(t *testing.T) {
	start := func() *api.Server {
		s, _ := bare(t, func(c *api.Config) { c.Replica, c.AdminToken = "r", "secret" })
		s.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/product/coalesced/1", nil))
		return s
	}
	told, others := start(), start()
	order := giveOrder(t, "secret", told)
	for name, s := range map[string]*api.Server{"another fleet's": others, "one that has started again": start()} {
		if raw, err := s.Answer(t.Context(), order); raw != nil || err != nil || s.Stats().TotalRequests != 1 {
			t.Errorf("%s replica answers %q, %v, and counts %d requests", name, raw, err, s.Stats().TotalRequests)
		}
	}
	if refused(t, told, order) || told.Stats().TotalRequests != 0 {
		t.Error("the replica that was meant does not obey")
	}
}
