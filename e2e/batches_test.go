package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/load"
	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

const (
	batches   = 60  // at once, over three replicas
	batchKeys = 100 // of each
	common    = 33  // of them that all batches have
)

// batchIDs returns the products of a batch: those in common, and others from all over the
// catalogue, in an order of its own, so that no two batches agree on one.
func batchIDs(batch int) []int {
	ids := make([]int, 0, batchKeys)
	for i := range batchKeys {
		id := i + 1
		if i >= common {
			id = common + 1 + (batch*61+i*7)%(product.CatalogueSize-common)
		}
		ids = append(ids, id)
	}
	for i := range ids { // a third of them begin at the end, and a third in the middle
		j := (i*37 + batch*13) % len(ids)
		ids[i], ids[j] = ids[j], ids[i]
	}
	return ids
}

func TestBatchesOnThreeReplicasReadEachRowOnce(t *testing.T) {
	t.Parallel()
	pg := database(t)
	f := start(t, setup{mode: "distributed", replicas: 3, postgres: pg, redisURL: redisrig.Start(t).URL(), env: []string{
		// All queries are under way at the same time, and wait for the table.
		"QUERY_DELAY=0s", "DB_POOL_MAX=100", "DB_POOL_WAIT=5m",
	}})
	var urls []string
	distinct := map[int]bool{}
	waited := 0
	for i := range batches {
		ids := batchIDs(i)
		urls = append(urls, f.URL()+"/products?ids="+strings.Trim(strings.ReplaceAll(fmt.Sprint(ids), " ", ","), "[]"))
		slices.Sort(ids)
		ids = slices.Compact(ids)
		waited += len(ids)
		for _, id := range ids {
			distinct[id] = true
		}
	}
	release := pg.Hold()
	defer release()
	pg.ResetQueries()
	before := joins(t, f)
	sent := make(chan *load.Result, 1)
	go func() {
		r, err := load.Run(t.Context(), load.Config{URLs: urls, Requests: batches, Concurrency: batches, Check: checkProducts})
		if err != nil {
			t.Error(err)
		}
		sent <- r
	}()
	eventually(t, "every batch waiting", func() bool { return len(sent) > 0 || waiting(t, f) == waited })
	eventually(t, "every flight having joined", func() bool { return len(sent) > 0 || joins(t, f)-before >= flights(t, f) })
	time.Sleep(onItsWay)
	release()
	r := <-sent
	if r.OK != batches {
		t.Errorf("%d of %d batches answered right; failures: %v", r.OK, batches, r.Errors)
	}
	expectRows(t, pg, distinct)
	expectBatchStats(t, f, r, waited, len(distinct))
}

var idsOfBatch = regexp.MustCompile(`= ANY ?\( ?'?\{([\d,]*)\}`)

// expectRows fails the test unless the statements of the log asked for each id once.
func expectRows(t *testing.T, pg *postgresrig.Server, distinct map[int]bool) {
	t.Helper()
	asked := map[int]int{}
	rows, queries := 0, 0
	for _, statement := range pg.Statements() {
		found := idsOfBatch.FindStringSubmatch(statement)
		if found == nil {
			continue
		}
		queries++
		for text := range strings.SplitSeq(found[1], ",") {
			id, err := strconv.Atoi(text)
			if err != nil {
				t.Fatalf("%v in %s", err, statement)
			}
			asked[id]++
			rows++
		}
	}
	if rows != len(distinct) || len(asked) != len(distinct) {
		t.Errorf("PostgreSQL was asked for %d rows, %d of them different; %d ids were in flight together", rows, len(asked), len(distinct))
	}
	if queries > batches {
		t.Errorf("%d queries for %d batches", queries, batches)
	}
	t.Logf("%d batches of %d ids, %d of them different: %d queries for %d rows", batches, batchKeys, len(distinct), queries, rows)
}

// expectBatchStats fails the test unless the fleet's statistics and the answers' headers
// say the same.
func expectBatchStats(t *testing.T, f *fleet.Fleet, r *load.Result, keys, distinct int) {
	t.Helper()
	st := fleetStats(t, f).Batches
	if st.Requests != batches || st.Keys != int64(keys) || st.QueriedKeys != int64(distinct) || st.KeysSaved != int64(keys-distinct) || st.Errors != 0 {
		t.Errorf("statistics %+v, want %d keys, %d of them queried", st, keys, distinct)
	}
	if r.KeyRoles["leader"] != distinct || r.KeyRoles["remote-follower"] == 0 || r.KeyRoles["local-follower"] == 0 || r.KeyRoles["fallback"] != 0 {
		t.Errorf("roles %v, want %d leaders", r.KeyRoles, distinct)
	}
}

// checkProducts says what is wrong with the answer to a request for products that all are
// in the catalogue.
func checkProducts(url string, _ http.Header, body []byte) error {
	_, list, _ := strings.Cut(url, "ids=")
	var answer struct {
		Products []product.Product
		Missing  []int32
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	seen := map[string]bool{}
	i := 0
	for text := range strings.SplitSeq(list, ",") {
		if seen[text] {
			continue
		}
		seen[text] = true
		id, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		if i >= len(answer.Products) || answer.Products[i] != product.Catalogue()[id-1] {
			return fmt.Errorf("product %d is not what came at place %d", id, i)
		}
		i++
	}
	if i != len(answer.Products) || len(answer.Missing) != 0 {
		return fmt.Errorf("%d products and %d missing, want %d", len(answer.Products), len(answer.Missing), i)
	}
	return nil
}
