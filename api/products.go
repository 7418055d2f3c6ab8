package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/product"
)

// maxIDs is how many ids one request may have.
const maxIDs = 200

// maxQuotedID is how much of a bad id the response quotes.
const maxQuotedID = 40

// ProductsResponse is the body that /products returns.
type ProductsResponse struct {
	QueryTimeMS  float64           `json:"query_time_ms"` // how long this request waited for its results
	Timestamp    float64           `json:"timestamp"`     // of the response, in Unix seconds
	Products     []product.Product `json:"products"`      // in the order of the request, each once
	Missing      []int32           `json:"missing"`       // ids that no product has, likewise
	EndpointType string            `json:"endpoint_type"` // coalesced
}

// many answers a request for many products: with one query for those that nobody in the
// fleet is fetching.
func (s *Server) many(c echo.Context) error {
	ids, err := parseIDs(c.QueryParams()["ids"])
	if err != nil {
		return err
	}
	start := time.Now()
	for _, id := range ids {
		s.hot.Add(id, start)
	}
	results, err := s.callMany(contextOf(c), ids)
	if results != nil {
		c.Response().Header().Set("X-Coalesce-Roles", countRoles(results))
	}
	if err != nil {
		return loggedError{err}
	}
	now := time.Now()
	body := ProductsResponse{
		QueryTimeMS: queryTime(now.Sub(start)), Timestamp: timestamp(now),
		Products: make([]product.Product, 0, len(ids)), Missing: []int32{}, EndpointType: "coalesced",
	}
	for _, id := range ids {
		if r := results[keyOf(id)]; r.Err == nil {
			body.Products = append(body.Products, r.Val)
		} else {
			body.Missing = append(body.Missing, id)
		}
	}
	return c.JSON(http.StatusOK, body)
}

// parseIDs reads a list such as 1,2,3. Its ids are returned in their order, each once.
func parseIDs(lists []string) ([]int32, error) {
	if len(lists) != 1 || lists[0] == "" || strings.Count(lists[0], ",") >= maxIDs {
		return nil, problemBadIDs
	}
	var ids []int32
	seen := map[int32]bool{}
	for text := range strings.SplitSeq(lists[0], ",") {
		id, err := parseID(text)
		if err != nil {
			return nil, badID(text)
		}
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// badID is problemBadID for one of many ids. It says which.
func badID(text string) *Problem {
	p := *problemBadID
	if len(text) > maxQuotedID {
		text = strings.ToValidUTF8(text[:maxQuotedID], "") + "…"
	}
	p.Detail = fmt.Sprintf("%q is no product id. %s", text, p.Detail)
	return &p
}

// countRoles says how many keys had each role, such as "leader=2, remote-follower=98": a
// dictionary as RFC 9651 has them.
func countRoles(results map[string]coalesce.Result[product.Product]) string {
	var counts [coalesce.Cached + 1]int
	for _, r := range results {
		counts[r.Role]++
	}
	var text []string
	for role, n := range counts {
		if n > 0 {
			text = append(text, coalesce.Role(role).String()+"="+strconv.Itoa(n))
		}
	}
	return strings.Join(text, ", ")
}

// batchCall is one call for many products. It also serves as the context of the query
// that the call may run.
type batchCall struct {
	requestContext
	// The two flags are set on the goroutine that runs the query, which may outlive the
	// call.
	ranQuery    atomic.Bool
	panicLogged atomic.Bool
}

// callMany runs one coalesced call for many products and counts it. The error is nil when
// each product is there, or is known not to be.
func (s *Server) callMany(ctx requestContext, ids []int32) (results map[string]coalesce.Result[product.Product], err error) {
	s.batches.requests.Add(1)
	s.batches.keys.Add(uint64(len(ids)))
	results, err = s.doMany(&batchCall{requestContext: ctx}, ids)
	if err == nil {
		err = firstError(results, ids)
	}
	if err != nil && ctx.Err() == nil { // a client that has left sees no error
		s.batches.errors.Add(1)
	}
	for _, r := range results {
		saved := r.Role == coalesce.LocalFollower || r.Role == coalesce.RemoteFollower || r.Role == coalesce.Cached
		if saved && (r.Err == nil || isMissing(r.Err)) {
			s.batches.saved.Add(1)
		}
	}
	return results, err
}

// isMissing says whether there is no such product. Who follows a batch of another version
// of this program may be told so by coalesce.ErrNoResult.
func isMissing(err error) bool {
	return errors.Is(err, product.ErrNotFound) || errors.Is(err, coalesce.ErrNoResult)
}

// firstError returns the error of the first product that has another one than that it is
// missing.
func firstError(results map[string]coalesce.Result[product.Product], ids []int32) error {
	for _, id := range ids {
		if err := results[keyOf(id)].Err; err != nil && !isMissing(err) {
			return err
		}
	}
	return nil
}

func (s *Server) doMany(c *batchCall, ids []int32) (results map[string]coalesce.Result[product.Product], err error) {
	defer func() {
		if value := recover(); value != nil {
			panicked := newPanicError(value)
			if c.ranQuery.Load() && !c.panicLogged.Load() { // the panic came from the tier and not from the query
				s.logPanic(c, panicked, slog.Int("products", len(ids)))
			}
			err = panicked
		}
	}()
	keys := make([]string, len(ids))
	byKey := make(map[string]int32, len(ids))
	for i, id := range ids {
		keys[i] = keyOf(id)
		byKey[keys[i]] = id
	}
	return s.config.Group.DoMany(c, keys, func(ctx context.Context, keys []string) (map[string]product.Product, error) {
		led := make([]int32, len(keys))
		for i, key := range keys {
			led[i] = byKey[key]
		}
		return s.queryMany(ctx, c, led)
	})
}

// queryMany runs the query of a batch and logs its failure, as query does.
func (s *Server) queryMany(ctx context.Context, c *batchCall, ids []int32) (map[string]product.Product, error) {
	c.ranQuery.Store(true)
	defer func() {
		if value := recover(); value != nil {
			c.panicLogged.Store(true)
			s.logPanic(ctx, newPanicError(value), slog.Int("products", len(ids)))
			panic(value)
		}
	}()
	found, err := s.config.Store.Products(product.OnQuery(ctx, func() {
		s.batches.queries.Add(1)
		s.batches.queriedKeys.Add(uint64(len(ids)))
	}), ids)
	s.logDatabaseState(ctx, err, slog.Int("products", len(ids)))
	if err != nil {
		return nil, err
	}
	vals := make(map[string]product.Product, len(found))
	for _, p := range found {
		vals[keyOf(p.ID)] = p
	}
	// A product that there is not is said to be missing as the query for a single one says
	// it, because single requests may follow.
	missing := coalesce.BatchError{}
	for _, id := range ids {
		if _, ok := vals[keyOf(id)]; !ok {
			missing[keyOf(id)] = product.ErrNotFound
		}
	}
	if len(missing) > 0 {
		return vals, missing
	}
	return vals, nil
}
