package load

import (
	"net/http"
	"strconv"
	"strings"
)

// BatchStats has those counts of GET /stats by which requests for many products are
// judged.
type BatchStats struct {
	Requests    int64 `json:"requests"`
	Keys        int64 `json:"keys"`
	Queries     int64 `json:"queries"`
	QueriedKeys int64 `json:"queried_keys"`
	KeysSaved   int64 `json:"keys_saved"`
	Errors      int64 `json:"errors"`
}

func (s BatchStats) counts() []int64 {
	return []int64{s.Requests, s.Keys, s.Queries, s.QueriedKeys, s.KeysSaved, s.Errors}
}

func (s BatchStats) since(before BatchStats) BatchStats {
	return BatchStats{
		Requests:    s.Requests - before.Requests,
		Keys:        s.Keys - before.Keys,
		Queries:     s.Queries - before.Queries,
		QueriedKeys: s.QueriedKeys - before.QueriedKeys,
		KeysSaved:   s.KeysSaved - before.KeysSaved,
		Errors:      s.Errors - before.Errors,
	}
}

// Batches returns addresses of /products for batches of size ids, which follow each other
// in the list of ids and begin anew at its end, until they would repeat. There are at most
// as many as limit.
func Batches(base string, ids []int, size, limit int) []string {
	size = min(size, len(ids))
	var urls []string
	for begin := 0; len(urls) < limit; {
		list := make([]string, size)
		for i := range list {
			list[i] = strconv.Itoa(ids[(begin+i)%len(ids)])
		}
		urls = append(urls, base+"/products?ids="+strings.Join(list, ","))
		if begin = (begin + size) % len(ids); begin == 0 {
			break
		}
	}
	return urls
}

// countKeys adds what X-Coalesce-Roles says: how many keys of a batch had which role.
func countKeys(counts map[string]int, header http.Header) {
	for item := range strings.SplitSeq(header.Get("X-Coalesce-Roles"), ",") {
		role, number, _ := strings.Cut(strings.TrimSpace(item), "=")
		if n, err := strconv.Atoi(number); err == nil && n > 0 && n <= maxBody {
			countMany(counts, role, n)
		}
	}
}

// keyCount returns how many keys the responses were about.
func (r *Result) keyCount() (n int64) {
	for _, of := range r.KeyRoles {
		n += int64(of)
	}
	return n
}
