package api_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce/local"
	"github.com/fleetcall/fleetcall/internal/product"
)

var canonicalID = regexp.MustCompile(`^[1-9][0-9]*$`)

// FuzzProductPath asks for a product by any path.
func FuzzProductPath(f *testing.F) {
	for _, id := range []string{"1", "999", "0", "01", "-1", "+1", "1.0", "1e3", "2147483647", "2147483648", "99999999999999999999", "%31", "1%2F2", "1/2", "..", "%", "١", "1 ", "", "1?x=2", "\x00"} {
		f.Add(id)
	}
	server, err := api.New(api.Config{
		Group:      local.Tier(&local.Group[string, product.Product]{}),
		Store:      &store{},
		Mode:       "local",
		Replica:    "test:1",
		Tiers:      func() api.Tiers { return api.Tiers{} },
		ResetTiers: func() {},
		Logger:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, id string) {
		for _, endpoint := range []string{"normal", "coalesced"} {
			path := "/product/" + endpoint + "/" + id
			u, err := url.ParseRequestURI(path)
			if err != nil {
				return // net/http would refuse the path before the server sees it
			}
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.URL, r.RequestURI = u, path
			w := httptest.NewRecorder()
			server.Handler().ServeHTTP(w, r)
			asked := strings.TrimPrefix(u.EscapedPath(), "/product/"+endpoint+"/")
			number, err := strconv.ParseInt(asked, 10, 32)
			valid := canonicalID.MatchString(asked) && err == nil
			switch w.Code {
			case http.StatusOK:
				var a api.ProductResponse
				if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || !valid || int64(a.Product.ID) != number {
					t.Errorf("%q: product %d, %v", path, a.Product.ID, err)
				}
			case http.StatusUnprocessableEntity:
				if valid {
					t.Errorf("%q is refused", path)
				}
			case http.StatusNotFound:
			default:
				t.Errorf("%q: status %d: %s", path, w.Code, w.Body)
			}
			if w.Code != http.StatusOK && w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("%q: %d as %q", path, w.Code, w.Header().Get("Content-Type"))
			}
		}
	})
}
